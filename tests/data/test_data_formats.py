"""Data sets of files of one's own: what is read is what was written, and bad files are one clear error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from autoprune.data import read_data
from autoprune.data.rows import read_rows
from autoprune.errors import AutopruneError, ConfigError, DataError

MADE = np.random.default_rng(0)


def picture(file: Path, shape: tuple[int, int] = (6, 8)) -> np.ndarray:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = MADE.integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return pixels


def mask(file: Path, shape: tuple[int, int] = (6, 8), palette: bool = False) -> np.ndarray:
    file.parent.mkdir(parents=True, exist_ok=True)
    numbers = MADE.integers(0, 4, shape, dtype=np.uint8)
    made = Image.fromarray(numbers)
    if palette:
        made = made.convert("P")
        made.putdata(numbers.flatten().tolist())
        made.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    made.save(file)
    return numbers


def masked(folder: Path, count: int = 3, palette: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
    return [
        (picture(folder / "images" / f"{i}.png"), mask(folder / "masks" / f"{i}.png", palette=palette))
        for i in range(count)
    ]


@pytest.mark.parametrize("palette", [False, True])
def test_masks_keep_their_numbers_and_pictures_are_normalised_by_train(tmp_path: Path, palette: bool) -> None:
    written = {role: masked(tmp_path / role, palette=palette) for role in ("train", "val")}
    found: Any = read_data("image_masks", path=tmp_path)
    assert set(found) == {"train", "validation"}
    pixels = np.stack([image for image, _ in written["train"]]).astype(float) / 255
    mean, std = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))
    for role, given in (("train", "train"), ("validation", "val")):
        for (image, numbers), (inputs, targets) in zip(written[given], found[role], strict=True):
            assert targets.tolist() == numbers.tolist()
            expected = ((image / 255 - mean) / std).transpose(2, 0, 1)
            np.testing.assert_allclose(inputs, expected, atol=1e-5)


def test_resized_masks_hold_only_numbers_that_were_there(tmp_path: Path) -> None:
    masked(tmp_path / "train")
    found: Any = read_data("image_masks", path=tmp_path, arguments={"size": 4})
    inputs, targets = found["train"][0]
    assert inputs.shape == (3, 4, 4)
    assert set(targets.unique().tolist()) <= {0, 1, 2, 3}
    assert len(found["train"]), len(found["validation"]) == (2, 1)


def coco(folder: Path, role: str = "train", count: int = 3, **changes: Any) -> dict[str, Any]:
    for i in range(count):
        picture(folder / role / f"{i}.png", (6 + i, 8))
    written = {
        "images": [{"id": 10 + i, "file_name": f"{i}.png"} for i in range(count)],
        "annotations": [
            {"image_id": 10, "category_id": 7, "bbox": [1, 2, 3, 4]},
            {"image_id": 12, "category_id": 3, "bbox": [0, 0, 2.5, 1], "iscrowd": 1},
            {"image_id": 10, "category_id": 3, "bbox": [0, 1, 1, 1]},
        ],
        "categories": [{"id": 7, "name": "disc"}, {"id": 3, "name": "square"}],
        **changes,
    }
    (folder / f"{role}.json").write_text(json.dumps(written))
    return written


def test_boxes_are_corners_and_classes_are_numbered_from_one(tmp_path: Path) -> None:
    coco(tmp_path)
    coco(tmp_path, "validation")
    found: Any = read_data("coco", path=tmp_path)
    first, second, third = (found["train"][i] for i in range(3))
    assert first[1]["boxes"].tolist() == [[1, 2, 4, 6], [0, 1, 1, 2]]
    assert first[1]["labels"].tolist() == [2, 1]
    assert second[1]["boxes"].shape == (0, 4)
    assert third[1]["iscrowd"].tolist() == [1]
    assert [one[0].shape for one in (first, second, third)] == [(3, 6, 8), (3, 7, 8), (3, 8, 8)]
    small: Any = read_data("coco", path=tmp_path, arguments={"size": 4})
    assert small["train"][0][0].shape == (3, 4, 4)
    assert small["train"][0][1]["boxes"][0].tolist() == pytest.approx([0.5, 4 / 3, 2, 4])


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("whole", [False, True])
def test_tensors_are_those_of_the_files(tmp_path: Path, ending: str, whole: bool) -> None:
    written = {role: (torch.randn(20, 3), torch.randn(20, 2)) for role in ("train", "validation", "test")}
    for role, (x, y) in written.items():
        if ending == "npz":
            np.savez(tmp_path / f"{role}.npz", x=x.numpy(), y=y.numpy())
        else:
            save_file({"x": x, "y": y}, tmp_path / f"{role}.safetensors")
    path = tmp_path / f"train.{ending}" if whole else tmp_path
    found: Any = read_data("tensor_files", path=path, arguments={"inputs": "x", "targets": "y"})
    if whole:
        assert [len(found[role]) for role in ("train", "validation")] == [18, 2]
        rows = sorted(pair[0].tolist() for role in found for pair in found[role])
        assert rows == sorted(written["train"][0].tolist())
        return
    for role, (x, y) in written.items():
        assert torch.equal(torch.stack([pair[0] for pair in found[role]]), x)
        assert torch.equal(torch.stack([pair[1] for pair in found[role]]), y)


ROWS = [{"a": i, "b": [i, 0.5], "price": 2.0 * i, "note": "n"} for i in range(12)]


def lines(file: Path, rows: list[Any] = ROWS) -> None:
    file.write_text("\n".join(map(json.dumps, rows)))


def parquet(file: Path, rows: list[Any] = ROWS) -> None:
    arrow = pytest.importorskip("pyarrow")
    importlib_parquet = pytest.importorskip("pyarrow.parquet")
    importlib_parquet.write_table(arrow.Table.from_pylist(rows), file)


@pytest.mark.parametrize(("write", "ending"), [(lines, "jsonl"), (parquet, "parquet")])
def test_rows_are_those_of_the_files(tmp_path: Path, write: Callable[[Path], None], ending: str) -> None:
    write(tmp_path / f"train.{ending}")
    write(tmp_path / f"validation.{ending}")
    one: Any = read_data("table", path=tmp_path, arguments={"inputs": "b", "target": "price"})
    assert [(x.tolist(), float(y)) for x, y in one["train"]] == [(row["b"], row["price"]) for row in ROWS]
    several: Any = read_data("table", path=tmp_path, arguments={"inputs": ["a", "b"], "target": "price"})
    inputs, _ = several["validation"][5]
    assert {name: torch.as_tensor(value).tolist() for name, value in inputs.items()} == {"a": 5, "b": [5, 0.5]}
    assert [row["note"] for row in read_rows(tmp_path / f"train.{ending}")] == ["n"] * 12  # type: ignore[attr-defined]


def test_double_precision_of_numpy_becomes_single_and_names_beside_are_not_read(tmp_path: Path) -> None:
    inputs = np.random.default_rng(0).random((12, 3))
    np.savez(tmp_path / "train.npz", inputs=inputs, targets=np.arange(12), names=np.array(["a", "b"]))
    read: Any = read_data("tensor_files", path=str(tmp_path))
    rows = [row for part in read.values() for row in iter_rows(part)]
    assert {(row.dtype, target.dtype) for row, target in rows} == {(torch.float32, torch.int64)}
    expected = sorted(map(tuple, inputs.astype(np.float32).tolist()))
    assert sorted(tuple(row.tolist()) for row, _ in rows) == expected


def iter_rows(part: Any) -> list[Any]:
    return [part[number] for number in range(len(part))]


def _no_mask(folder: Path) -> None:
    masked(folder / "train")
    (folder / "train" / "masks" / "1.png").unlink()


def _colours(folder: Path) -> None:
    masked(folder / "train")
    picture(folder / "train" / "masks" / "1.png")


def _other_size(folder: Path) -> None:
    masked(folder / "train")
    picture(folder / "train" / "images" / "1.png", (4, 8))
    mask(folder / "train" / "masks" / "1.png", (4, 8))


def _stretched(folder: Path) -> None:
    masked(folder / "train")
    mask(folder / "train" / "masks" / "1.png", (6, 4))


def _broken(folder: Path) -> None:
    masked(folder / "train")
    (folder / "train" / "images" / "1.png").write_bytes(b"no picture")


WRONG: list[tuple[str, Callable[[Path], object], dict[str, Any], type[AutopruneError], str]] = [
    ("image_masks", lambda f: None, {}, DataError, "must be a folder with train in it"),
    ("image_masks", lambda f: (f / "train").mkdir(), {}, DataError, "no picture in"),
    ("image_masks", _no_mask, {}, DataError, "1.png has no mask; put one of the same name"),
    ("image_masks", _colours, {}, DataError, "is no mask: PNG with the channels RGB"),
    ("image_masks", _other_size, {}, DataError, "set the argument size"),
    ("image_masks", _stretched, {"size": 4}, DataError, r"1.png is \(6, 4\), its picture \(6, 8\); make them alike"),
    ("image_masks", _broken, {}, DataError, "cannot be read as a picture"),
    ("image_masks", lambda f: masked(f / "train"), {"size": 0}, ConfigError, "size must be at least 1 pixel"),
    ("coco", lambda f: None, {}, DataError, "must be a folder with train.json in it"),
    ("coco", lambda f: (f / "train.json").write_text("{"), {}, DataError, "cannot be read"),
    ("coco", lambda f: (f / "train.json").write_text("[]"), {}, DataError, "an object with the lists images"),
    ("coco", lambda f: coco(f, images=[]), {}, DataError, "names no images"),
    (
        "coco",
        lambda f: coco(f, annotations=[{"image_id": 99, "category_id": 7, "bbox": [0, 0, 1, 1]}]),
        {},
        DataError,
        "annotation 0: image_id 99 is none of images",
    ),
    ("coco", lambda f: coco(f, images=[{"id": 10}]), {}, DataError, "is not as COCO's files are"),
    (
        "coco",
        lambda f: coco(f, annotations=[{"image_id": 10, "category_id": 9, "bbox": [0, 0, 1, 1]}]),
        {},
        DataError,
        "annotation 0: category_id 9 is none of train's",
    ),
    (
        "coco",
        lambda f: coco(f, annotations=[{"image_id": 10, "category_id": 7, "bbox": [0, 0, 0, 1]}]),
        {},
        DataError,
        "annotation 0: bbox .* is none",
    ),
    ("coco", lambda f: coco(f, images=[{"id": 10, "file_name": "../x.png"}]), {}, DataError, "which is not below"),
    ("coco", lambda f: coco(f, images=[{"id": 10, "file_name": "x.png"}]), {}, DataError, "which is not in"),
    ("tensor_files", lambda f: None, {}, DataError, "must be a folder with train.safetensors, train.npz in it"),
    (
        "tensor_files",
        lambda f: np.savez(f / "train.npz", inputs=np.zeros((3, 2))),
        {},
        DataError,
        "has no tensor 'targets', it has inputs",
    ),
    (
        "tensor_files",
        lambda f: np.savez(f / "train.npz", inputs=np.zeros((3, 2)), targets=np.zeros(2)),
        {},
        DataError,
        "give one row of each",
    ),
    (
        "tensor_files",
        lambda f: np.savez(f / "train.npz", inputs=np.array([{}], dtype=object), targets=np.zeros(1)),
        {},
        DataError,
        "pickled objects are not read",
    ),
    ("tensor_files", lambda f: (f / "train.safetensors").write_bytes(b"x"), {}, DataError, "cannot be read"),
    (
        "tensor_files",
        lambda f: np.savez(f / "train.npz", inputs=np.zeros((1, 2)), targets=np.zeros(1)),
        {},
        DataError,
        "give at least two, or a validation part",
    ),
    ("table", lambda f: lines(f / "train.jsonl"), {"inputs": "zzz", "target": "a"}, DataError, "has no 'zzz'"),
    ("table", lambda f: parquet(f / "train.parquet"), {"inputs": "z", "target": "a"}, DataError, "has no column 'z'"),
    ("table", lambda f: lines(f / "train.jsonl", [1]), {"inputs": "a", "target": "a"}, DataError, "line 1: a int"),
    (
        "table",
        lambda f: (f / "train.jsonl").write_text('{"a": 1}\n{"a"'),
        {"inputs": "a", "target": "a"},
        DataError,
        "line 2: not JSON",
    ),
    ("table", lambda f: (f / "train.jsonl").write_text("\n"), {"inputs": "a", "target": "a"}, DataError, "has no rows"),
    ("table", lambda f: None, {"inputs": "a"}, ConfigError, "needs the argument 'target'"),
]


@pytest.mark.parametrize(("name", "write", "arguments", "kind", "message"), WRONG)
def test_bad_files_are_one_clear_error(
    tmp_path: Path,
    name: str,
    write: Callable[[Path], object],
    arguments: dict[str, Any],
    kind: type[AutopruneError],
    message: str,
) -> None:
    write(tmp_path)
    with pytest.raises(kind, match=message) as caught:
        read_data(name, path=tmp_path, arguments=arguments)
    assert "\n" not in str(caught.value)
