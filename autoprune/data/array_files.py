"""Arrays of files, .npz, .npy and .safetensors, read with care: what heads claim is checked before memory is taken."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from autoprune.errors import DataError, blame, shortened

ENDINGS = (".npz", ".npy", ".safetensors")
ALONE = "tokens"
"""What the only array of a `.npy` file is called."""


def read_arrays(file: Path, *, what: str, wanted: Collection[str] | None = None) -> dict[str, Tensor | None]:
    """Name -> tensor, of all in a file; those that are not wanted are not looked at, as they may be names of classes.

    Args:
        file: a regular file with one of `ENDINGS`.
        what: the data set, for messages.
        wanted: names; None: all.

    Raises:
        DataError: the file cannot be read, or see `tensor_of`; pickled objects are not.
    """
    with blame(DataError, f"{what}: {file} cannot be read", then="Write it again; pickled objects are not read."):
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(file))
        if file.suffix == ".npy":
            with file.open("rb") as head:
                _check_room({ALONE: _claimed(head)}, file, what)
            return {ALONE: tensor_of(np.load(file, allow_pickle=False), f"{what}: {file}")}
        with zipfile.ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if len(members) < len(archive.infolist()):
                raise DataError(f"{what}: {file} has two arrays of one name; write it again")
            chosen = [name for name in members if wanted is None or name in wanted]
            sizes = {}
            for name in chosen:
                with archive.open(members[name]) as head:
                    sizes[name] = _claimed(head)
        _check_room(sizes, file, what)
        with np.load(file, allow_pickle=False) as found:
            read = {name: tensor_of(found[name], f"{what}: {file}: {name}") for name in chosen}
        return {name: read.get(name) for name in members}


def tensor_of(array: Any, where: str) -> Tensor:
    """Numbers of numpy as a tensor: in this machine's byte order, unsigned ones of 64 bits as signed.

    Args:
        array: of numbers or truth values.
        where: names it in messages.

    Raises:
        DataError: other contents, or numbers that a tensor cannot hold.
    """
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: it holds {shortened(str(array.dtype), 80)}; give whole or real numbers")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if array.dtype.kind == "u" and array.dtype.itemsize == 8:
        if array.size and int(array.max()) > np.iinfo(np.int64).max:
            raise DataError(f"{where}: {int(array.max())} is larger than a tensor can hold; give numbers below 2^63")
        array = array.astype(np.int64)
    return torch.from_numpy(array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("=")))


def _claimed(head: BinaryIO | Any) -> int:
    """Bytes that an array in numpy's format takes, by its head; raises ValueError where that is none."""
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(head)
    return math.prod(shape) * dtype.itemsize


def _check_room(sizes: dict[str, int], file: Path, what: str) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if sum(sizes.values()) > memory // 2:  # they are copied once
        raise DataError(
            f"{what}: {file} unpacks to {sum(sizes.values()):,} bytes, and this machine has {memory:,}; give fewer "
            f"examples, or a data set of your own that reads them as they are needed"
        )
