import gzip
import os
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from autoprune.data import load_data
from autoprune.data.base import DataSplits, TensorSplit
from autoprune.errors import ConfigError, DataError


def contents(splits: DataSplits) -> tuple[list[bytes], list[list[int]]]:
    """All images as bytes, and the labels per split."""
    images, labels = [], []
    for split in (splits.train, splits.validation, splits.test):
        assert isinstance(split, TensorSplit)
        images += [image.numpy().tobytes() for batch, _ in split.batches(999) for image in batch]
        labels.append(split.labels.tolist())
    return images, labels


class TestDigits:
    def test_three_disjoint_stratified_splits(self):
        splits = load_data("digits")
        images, labels = contents(splits)
        assert [len(part) for part in labels] == [599, 599, 599]
        assert len(set(images)) == 1797
        for part in labels:
            share = np.bincount(part) / len(part)
            np.testing.assert_allclose(share, np.bincount(load_digits().target) / 1797, atol=0.005)
        assert splits.classes == 10
        assert splits.input_shape == (1, 16, 16)

    def test_always_the_same(self):
        assert load_data("digits").fingerprint == load_data("digits").fingerprint

    def test_train_is_normalised_and_a_digit_keeps_its_label(self):
        splits = load_data("digits")
        inputs, targets = next(splits.train.batches(2000))
        assert inputs.shape == (599, 1, 16, 16)
        assert abs(inputs.mean()) < 1e-4
        assert abs(inputs.std() - 1) < 1e-3
        original = load_digits()
        small = torch.nn.functional.avg_pool2d(inputs, 2)[:, 0].flatten(1).double()
        reference = torch.from_numpy(original.data)
        nearest = torch.corrcoef(torch.cat([small[:50], reference]))[:50, 50:].argmax(1)
        assert original.target[nearest].tolist() == targets[:50].tolist()


def cifar_folder(parent: Path, per_file: int = 1200) -> tuple[Path, np.ndarray]:
    folder = parent / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, per_file, 3072), dtype=np.uint8)
    for part, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        batch = {b"data": pixels[part], b"labels": [i % 10 for i in range(per_file)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    return folder, pixels


class Malicious:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return exec, (self.command,)


class TestCifar10:
    @pytest.mark.parametrize("inner", [False, True])
    def test_reads_the_folder_or_its_parent(self, tmp_path: Path, inner: bool):
        folder, pixels = cifar_folder(tmp_path)
        splits = load_data("cifar10", path=folder if inner else tmp_path)
        assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [1000, 5000, 1200]
        images, labels = contents(splits)
        assert len(set(images)) == 7200
        assert np.bincount(labels[1]).tolist() == [500] * 10
        assert splits.input_shape == (3, 32, 32)
        stored = splits.test._images.flatten(1).numpy()
        assert {image.tobytes() for image in stored} == {row.tobytes() for row in pixels[5]}

    def test_limits_are_stratified(self, tmp_path: Path):
        cifar_folder(tmp_path)
        limits = {"train_limit": 100, "validation_limit": 50, "test_limit": 30}
        splits = load_data("cifar10", path=tmp_path, arguments=limits)
        labels = contents(splits)[1]
        assert [np.bincount(part).tolist() for part in labels] == [[10] * 10, [5] * 10, [3] * 10]
        assert splits.classes == 10

    def test_a_pickle_that_runs_code_is_refused_before_it_runs(self, tmp_path: Path):
        folder, _ = cifar_folder(tmp_path, per_file=10)
        victim = tmp_path / "ran"
        attack = {b"data": Malicious(f"open({str(victim)!r}, 'w')"), b"labels": []}
        (folder / "data_batch_3").write_bytes(pickle.dumps(attack))
        with pytest.raises(DataError, match=r"builtins\.exec"):
            load_data("cifar10", path=tmp_path)
        assert not victim.exists()
        pickle.loads((folder / "data_batch_3").read_bytes())
        assert victim.exists()  # the attack is a real one

    @pytest.mark.parametrize("broken", [b"", b"\x80\x02}q", pickle.dumps({b"data": 3}), pickle.dumps([1])])
    def test_broken_files_are_named(self, tmp_path: Path, broken: bytes):
        folder, _ = cifar_folder(tmp_path, per_file=10)
        (folder / "data_batch_2").write_bytes(broken)
        with pytest.raises(DataError, match="data_batch_2 is not a CIFAR-10 batch"):
            load_data("cifar10", path=tmp_path)

    def test_a_missing_file_is_named_with_the_places_looked_at(self, tmp_path: Path):
        folder, _ = cifar_folder(tmp_path, per_file=10)
        (folder / "data_batch_4").unlink()
        with pytest.raises(DataError, match=f"'data_batch_4'.*{folder}.*AUTOPRUNE_DATA"):
            load_data("cifar10", path=tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist"])
def test_without_any_folder_the_error_says_what_to_set(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AUTOPRUNE_DATA", raising=False)
    with pytest.raises(DataError, match="set path or the environment variable AUTOPRUNE_DATA"):
        load_data(name)


def fashion_folder(parent: Path, *, packed: bool) -> None:
    folder = parent / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", 6500), ("t10k", 40)):
        images = struct.pack(">4I", 0x803, n, 28, 28) + rng.integers(0, 256, n * 784, dtype=np.uint8).tobytes()
        labels = struct.pack(">2I", 0x801, n) + bytes(i % 10 for i in range(n))
        for kind, raw in (("images-idx3", images), ("labels-idx1", labels)):
            file = folder / f"{part}-{kind}-ubyte{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(raw, 1) if packed else raw)


class TestFashionMnist:
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("inside", ["", "FashionMNIST", "FashionMNIST/raw"])
    def test_reads_packed_and_unpacked_from_any_level(
        self, tmp_path: Path, packed: bool, inside: str, monkeypatch: pytest.MonkeyPatch
    ):
        fashion_folder(tmp_path, packed=packed)
        monkeypatch.setenv("AUTOPRUNE_DATA", str(tmp_path / inside))
        splits = load_data("fashion_mnist")
        assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [500, 6000, 40]
        assert splits.input_shape == (1, 28, 28)

    def test_a_cut_file_is_named(self, tmp_path: Path):
        fashion_folder(tmp_path, packed=False)
        file = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(DataError, match="train-images-idx3-ubyte is not an IDX file"):
            load_data("fashion_mnist", path=tmp_path)

    def test_a_broken_archive_is_named(self, tmp_path: Path):
        fashion_folder(tmp_path, packed=True)
        file = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz"
        file.write_bytes(file.read_bytes()[:999])
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz cannot be read"):
            load_data("fashion_mnist", path=tmp_path)


def picture_folder(parent: Path, parts: dict[str, dict[str, int]]) -> None:
    shade = 0
    for part, classes in parts.items():
        for name, count in classes.items():
            folder = parent / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                shade += 1
                Image.new("RGB", (9, 7), (shade, 0, 255)).save(folder / f"{i}.png")


class TestImageFolder:
    def test_classes_are_the_folders_of_train(self, tmp_path: Path):
        two = {"cat": 3, "dog": 4}
        picture_folder(tmp_path, {"train": two, "val": two, "test": two})
        splits = load_data("image_folder", path=tmp_path, arguments={"size": 8})
        assert splits.classes == 2
        assert splits.input_shape == (3, 8, 8)
        images, labels = contents(splits)
        assert [np.bincount(part).tolist() for part in labels] == [[3, 4]] * 3
        assert len(set(images)) == 21

    def test_validation_is_held_out_of_train_if_there_is_none(self, tmp_path: Path):
        picture_folder(tmp_path, {"train": {"a": 20, "b": 20}})
        splits = load_data("image_folder", path=tmp_path)
        assert (len(splits.train), len(splits.validation), splits.test) == (36, 4, None)
        assert np.bincount(splits.validation.labels).tolist() == [2, 2]

    def test_errors_name_the_folder(self, tmp_path: Path):
        with pytest.raises(DataError, match="train must be a folder"):
            load_data("image_folder", path=tmp_path)
        picture_folder(tmp_path, {"train": {"a": 2, "b": 2}, "test": {"a": 1, "c": 1}})
        with pytest.raises(DataError, match=r"\['c'\], which train has not"):
            load_data("image_folder", path=tmp_path)
        (tmp_path / "train" / "a" / "0.png").write_bytes(b"no picture")
        with pytest.raises(DataError, match=r"0\.png cannot be read as a picture"):
            load_data("image_folder", path=tmp_path)

    def test_pictures_are_of_known_formats_whatever_they_are_called(self, tmp_path: Path):
        picture_folder(tmp_path, {"train": {"a": 2, "b": 2}})
        Image.new("RGB", (9, 7)).save(tmp_path / "train" / "a" / "0.png", format="TIFF")
        with pytest.raises(DataError, match=r"0\.png cannot be read as a picture"):
            load_data("image_folder", path=tmp_path)

    def test_pictures_beyond_any_sense_are_refused_before_they_are_decoded(self, tmp_path: Path):
        picture_folder(tmp_path, {"train": {"a": 2, "b": 2}})
        for width in (12_000, 30_000):
            Image.new("1", (width, 12_000)).save(tmp_path / "train" / "a" / "0.png")
            with pytest.raises(DataError, match=r"0\.png .*pixels"):
                load_data("image_folder", path=tmp_path)

    def test_pipes_and_devices_are_no_pictures(self, tmp_path: Path):
        picture_folder(tmp_path, {"train": {"a": 2, "b": 2}})
        os.mkfifo(tmp_path / "train" / "a" / "pipe.png")
        with pytest.raises(DataError, match=r"pipe\.png is no plain file"):
            load_data("image_folder", path=tmp_path)
        (tmp_path / "train" / "a" / "pipe.png").unlink()
        (tmp_path / "train" / "b" / "zero.png").symlink_to("/dev/zero")
        with pytest.raises(DataError, match=r"zero\.png is no plain file"):
            load_data("image_folder", path=tmp_path)

    def test_path_is_needed(self):
        with pytest.raises(ConfigError, match="needs the argument 'path': the folder with `train` in it"):
            load_data("image_folder")


@pytest.mark.parametrize(("name", "reader"), [("cifar10", "cifar10"), ("fashion_mnist", "fashion")])
def test_original_files_read_as_another_reader_reads_them(
    name: str, reader: str, original_data: Path, monkeypatch: pytest.MonkeyPatch
):
    if not (original_data / "load_data.py").is_file():
        pytest.skip("no independent reader load_data.py in AUTOPRUNE_DATA")
    monkeypatch.syspath_prepend(str(original_data))
    sys.modules.pop("load_data", None)
    reference = getattr(__import__("load_data"), reader)
    splits = load_data(name, path=original_data)

    def keys(images, labels):
        rows = np.ascontiguousarray(images).reshape(len(labels), -1)
        return {(row.tobytes(), int(label)) for row, label in zip(rows, labels, strict=True)}

    ours = [(s._images.permute(0, 2, 3, 1).numpy(), s.labels.numpy()) for s in (splits.train, splits.validation)]
    assert keys(*ours[0]) | keys(*ours[1]) == keys(*reference("train"))
    assert keys(splits.test._images.permute(0, 2, 3, 1).numpy(), splits.test.labels.numpy()) == keys(*reference("test"))
    held = {"cifar10": 500, "fashion_mnist": 600}[name]
    assert np.bincount(splits.validation.labels).tolist() == [held] * 10
