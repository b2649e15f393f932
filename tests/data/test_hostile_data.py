"""Files of data that are damaged, hostile or contradict themselves: one clear error, at once, never a wrong number."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from autoprune.config.json_reader import no_key_twice
from autoprune.data import read_data
from autoprune.data.pairs import as_tensors
from autoprune.errors import AutopruneError

NUMBERS = np.arange(40, dtype=np.float32).reshape(10, 4)
TARGETS = np.arange(10) % 3


def tensors(file: Path, **changes: Any) -> None:
    np.savez(file, **{"inputs": NUMBERS, "targets": TARGETS, **changes})


def claiming(file: Path) -> None:
    """Heads that promise terabytes."""
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("inputs", "targets"):
            head = io.BytesIO()
            np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (2**42,)})
            archive.writestr(f"{name}.npy", head.getvalue())


def boxed(folder: Path, role: str = "train", **changes: Any) -> None:
    (folder / role).mkdir()
    for i in range(3):
        Image.new("RGB", (20, 10)).save(folder / role / f"{i}.png")
    listed = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 20, "height": 10} for i in range(3)],
        "annotations": [{"image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        **changes,
    }
    (folder / f"{role}.json").write_text(json.dumps(listed))


def box(folder: Path, **changes: Any) -> None:
    boxed(folder, annotations=[{"image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5], **changes}])


def swapped(folder: Path) -> None:
    boxed(folder)
    boxed(folder, "val", categories=[{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}])


def masked(folder: Path) -> Path:
    for kind in ("images", "masks"):
        (folder / "train" / kind).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB" if kind == "images" else "L", (20, 10)).save(folder / "train" / kind / f"{i}.png")
    return folder / "train"


def two_masks(folder: Path) -> None:
    Image.new("L", (20, 10), 1).save(masked(folder) / "masks" / "0.bmp")


def sixteen_bits(folder: Path) -> None:
    deep = np.full((10, 20), 3000, dtype=np.uint16)  # dark; Pillow would make it white
    Image.fromarray(deep).save(masked(folder) / "images" / "0.png")


def rows(folder: Path, *more: str) -> None:
    (folder / "train.jsonl").write_text("\n".join(['{"x": [1, 2], "y": 1}'] * 5 + list(more)))


def sparse(file: Path) -> None:
    with file.open("wb") as empty:
        empty.truncate(2**30)


XY = {"inputs": "x", "target": "y"}
WRONG: list[tuple[str, Callable[[Path], object], dict[str, Any], str]] = [
    ("tensor_files", lambda f: claiming(f / "train.npz"), {}, r"unpacks to [\d,]+ bytes, and this machine has"),
    ("tensor_files", lambda f: tensors(f / "train.npz", inputs=NUMBERS * 1j), {}, "inputs: it holds complex64; give"),
    (
        "tensor_files",
        lambda f: tensors(f / "train.npz", inputs=NUMBERS.astype(float) * 1e300),
        {},
        "numbers beyond 3.4e",
    ),
    (
        "tensor_files",
        lambda f: tensors(f / "train.npz", targets=TARGETS.astype(np.uint64) + np.uint64(2**63)),
        {},
        r"targets: 9223372036854775810 is larger than a tensor can hold; give numbers below 2\^63",
    ),
    ("tensor_files", lambda f: tensors(f / "train.npz"), {"inputs": ["x"]}, "inputs must be the name of a tensor"),
    ("tensor_files", lambda f: sparse(f / "train.npz"), {}, "not a zip file"),
    (
        "tensor_files",
        lambda f: [tensors(f / f"{name}.npz") for name in ("train", "valid")],
        {},
        r"valid\.npz is not read by this name; call it validation\.npz",
    ),
    (
        "tensor_files",
        lambda f: [tensors(f / f"{name}.npz") for name in ("train", "val", "validation")],
        {},
        r"validation\.npz and val\.npz, which both are the part validation",
    ),
    ("tensor_files", lambda f: os.mkfifo(f / "train.npz"), {}, r"train\.npz is no file; put a file there"),
    ("coco", lambda f: os.mkfifo(f / "train.json"), {}, r"train\.json is no file; put a file there"),
    ("coco", lambda f: (f / "train.json").mkdir(), {}, r"train\.json is no file"),
    ("coco", lambda f: sparse(f / "train.json"), {}, "it is no JSON; write it again as COCO's files are"),
    ("coco", lambda f: (f / "train.json").write_text('{"images": [], "images": []}'), {}, "'images' stands twice"),
    (
        "coco",
        lambda f: boxed(f, images=[{"id": 0, "file_name": f"{i}.png"} for i in range(2)], annotations=[]),
        {},
        "several images of the id 0; give each its own",
    ),
    ("coco", lambda f: boxed(f, categories=[{"id": 1}, {"id": 1}]), {}, "category 1: id 1 stands twice"),
    ("coco", lambda f: boxed(f, categories=[{"id": 1}, {"id": "2"}]), {}, "category 1: id '2' is no whole number"),
    ("coco", swapped, {}, r"category 1 is 'dog' in .*val\.json and 'cat' in train\.json; give both one list"),
    ("coco", lambda f: box(f, bbox="1234"), {}, "annotation 0: bbox '1234' is none"),
    ("coco", lambda f: box(f, bbox=[1, 1, 5]), {}, r"annotation 0: bbox \[1, 1, 5\] is none"),
    ("coco", lambda f: box(f, bbox=[1, 1, 1e300, 5]), {}, "annotation 0: bbox .* is none"),
    ("coco", lambda f: box(f, bbox=[20, 1, 5, 5]), {}, "lies outside of its picture of 20 x 10 pixels; correct it"),
    ("coco", lambda f: box(f, bbox=[0.1, 0.2, 0.5, 0.6]), {}, "all boxes lie within one pixel; give them in pixels"),
    ("coco", lambda f: box(f, iscrowd=7), {}, "iscrowd is 0 or 1, got 7"),
    ("coco", boxed, {"size": 10**7}, "size must be at most 11,585 pixels, got 10,000,000"),
    ("image_masks", two_masks, {}, r"0\.bmp and .*0\.png are masks of one picture; leave one of them there"),
    ("image_masks", sixteen_bits, {}, r"more than 8 bits a channel \(mode I;16\); save it with 8"),
    ("image_folder", lambda f: (f / "valid").mkdir(parents=True), {}, "must be a folder with one folder per class"),
    ("image_folder", lambda f: None, {"size": None}, "size must be at least 1 pixel"),
    ("table", lambda f: rows(f, '{"x": [1, 2]}'), XY, "row 5 has no 'y'; its columns are x"),
    ("table", lambda f: rows(f, '{"x": null, "y": 1}'), XY, r"row 5: x is missing \(null\); correct it or leave"),
    ("table", lambda f: rows(f, '{"x": [NaN, 2], "y": 1}'), XY, "row 5: x has nan, which is no finite number"),
    ("table", lambda f: rows(f, '{"x": [1e400, 2], "y": 1}'), XY, "row 5: x has inf, which is no finite number"),
    ("table", lambda f: rows(f, f'{{"x": [1, 2], "y": {10**400}}}'), XY, "row 5: y has 1000.*no finite number below 2"),
    ("table", lambda f: rows(f, '{"x": [1, 2], "y": 1, "y": 2}'), XY, "line 6: not JSON .*'y' stands twice"),
    ("table", lambda f: sparse(f / "train.jsonl"), XY, "line 1: longer than 67,108,864 characters; each line is one"),
    ("table", rows, {"inputs": [], "target": "y"}, r"inputs must be the name of a column or a list of names, got \[\]"),
    ("table", rows, {"inputs": 5, "target": "y"}, "inputs must be the name of a column or a list of names, got 5"),
    ("table", rows, {"inputs": ["x", "x"], "target": "y"}, "inputs has a name twice: x, x; give each once"),
    ("table", rows, {"inputs": "x", "target": ["y"]}, r"target must be the name of a column, got \['y'\]"),
]


@pytest.mark.parametrize(("name", "write", "arguments", "message"), WRONG)
def test_what_is_wrong_is_one_clear_error(
    tmp_path: Path, name: str, write: Callable[[Path], object], arguments: dict[str, Any], message: str
) -> None:
    write(tmp_path)
    with pytest.raises(AutopruneError, match=message) as caught:
        read_data(name, path=tmp_path, arguments=arguments)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800


def test_numbers_of_other_machines_are_read_as_what_they_are(tmp_path: Path) -> None:
    tensors(tmp_path / "train.npz", inputs=NUMBERS.astype(">f4"), targets=TARGETS.astype(">u8"))
    found: Any = read_data("tensor_files", path=tmp_path)
    read = [found[role][i] for role in ("train", "validation") for i in range(len(found[role]))]
    assert sorted((tuple(x.tolist()), int(y)) for x, y in read) == sorted(
        (tuple(x), int(y)) for x, y in zip(NUMBERS.tolist(), TARGETS, strict=True)
    )


def test_boxes_of_a_picture_of_another_size_are_not_used(tmp_path: Path) -> None:
    boxed(tmp_path)
    Image.new("RGB", (40, 20)).save(tmp_path / "train" / "0.png")
    Image.new("RGB", (40, 20)).save(tmp_path / "train" / "1.png")
    Image.new("RGB", (40, 20)).save(tmp_path / "train" / "2.png")
    found: Any = read_data("coco", path=tmp_path)
    with pytest.raises(AutopruneError, match="has 40 x 20 pixels, its list says 20 x 10, so boxes may stand elsewhere"):
        found["train"][0]


def test_a_validation_folder_by_another_name_is_not_passed_over(tmp_path: Path) -> None:
    for name in ("train", "valid"):
        (tmp_path / name / "cat").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "cat" / "0.png")
    with pytest.raises(AutopruneError, match="valid is not read by this name; call it validation, or put it elsewhere"):
        read_data("image_folder", path=tmp_path, arguments={"size": 8})


def test_a_key_that_stands_twice_among_very_many_is_found_at_once() -> None:
    many = [(str(i), 0) for i in range(200_000)]
    began = time.thread_time()
    with pytest.raises(ValueError, match="the key '199999' stands twice"):
        no_key_twice([*many, ("199999", 0)])
    assert time.thread_time() - began < 2


def test_lists_that_are_no_arrays_are_one_clear_error() -> None:
    for value in ([[1, 2], [3]], [1, "a"], [2**70]):
        with pytest.raises(AutopruneError, match="is no array of numbers"):
            as_tensors(value)
    assert torch.equal(as_tensors([[1, 2], [3, 4]]), torch.tensor([[1, 2], [3, 4]]))


TOKENS = np.arange(500) % 50


def test_a_text_is_read_without_the_mark_at_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "with.txt").write_bytes(b"\xef\xbb\xbf" + b"abc " * 500)
    (tmp_path / "without.txt").write_bytes(b"abc " * 500)
    with_mark, without = (
        read_data("text", path=tmp_path / f"{name}.txt", arguments={"context": 8}) for name in ("with", "without")
    )
    assert with_mark.classes == without.classes == 5  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("file", "write", "arguments", "message"),
    [
        ("t.txt", lambda f: f.write_bytes(("abc " * 500).encode("utf-16-le")), {}, "it has null characters"),
        ("t.txt", sparse, {}, "it has null characters; convert it"),
        (
            "t.txt",
            lambda f: f.write_text("abc " * 500),
            {"tokenizer": 5},
            "tokenizer must be characters, bytes, or the",
        ),
        ("t.txt", lambda f: f.write_text("abc " * 500), {"tokenizer": "a" * 9999}, "tokenizer must be characters"),
        ("t.txt", lambda f: f.write_text("abc " * 500), {"tokenizer": "charcters"}, "Did you mean 'characters'?"),
        ("t.txt", lambda f: f.write_text("abc " * 500), {"vocabulary": 9}, "that of a text is its tokenizer's"),
        ("t.npy", lambda f: np.save(f, TOKENS - 3), {}, "tokens from -3 to 46; give whole numbers from 0$"),
        ("t.npy", lambda f: np.save(f, TOKENS), {"vocabulary": 10}, "from 0 to 49; give whole numbers from 0 to 9"),
        ("t.npy", lambda f: np.save(f, TOKENS), {"vocabulary": -1}, "vocabulary must be a whole number of at least 1"),
        ("t.npy", lambda f: np.save(f, TOKENS), {"vocabulary": "many"}, "vocabulary must be a whole number"),
        ("t.npy", lambda f: np.save(f, TOKENS + np.uint64(2**63)), {}, "larger than a tensor can hold|whole numbers"),
        (
            "t.npz",
            lambda f: np.savez(f, train=TOKENS, validation=TOKENS, tets=TOKENS),
            {},
            "holds train, validation, tets",
        ),
    ],
)
def test_what_is_no_text_is_refused(
    tmp_path: Path, file: str, write: Callable[[Path], object], arguments: dict[str, Any], message: str
) -> None:
    write(tmp_path / file)
    with pytest.raises(AutopruneError, match=message):
        read_data("text", path=tmp_path / file, arguments={"context": 8, **arguments})


@pytest.mark.parametrize("place", ["/" + "a" * 10_000, "nowhere", "/etc/passwd", "~nobody-here/x"])
@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist"])
def test_a_place_that_holds_no_data_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, name: str, place: str) -> None:
    monkeypatch.setenv("AUTOPRUNE_DATA", place)
    with pytest.raises(AutopruneError, match="set path or the environment variable AUTOPRUNE_DATA") as caught:
        read_data(name)
    assert len(str(caught.value)) < 1000
