"""Plain tensors in files: safetensors or npz, one for each part, or one for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from autoprune.data.parts import held_out, parts_of
from autoprune.errors import DataError, blame

_WHAT = "tensor_files"
_ENDINGS = (".safetensors", ".npz")


def load(*, path: Path, inputs: str = "inputs", targets: str = "targets") -> dict[str, Dataset[Any]]:
    """Examples along the first axis of two tensors, in memory; numbers of numpy in double precision become single.

    Args:
        path: a folder with `train.npz` or `train.safetensors`, and likewise `validation` (or `val`) and `test`; or one
            such file, of which every tenth example, drawn once, is for validation.
        inputs: name of the inputs in a file.
        targets: name of the targets in a file.

    Raises:
        DataError: a file is missing or cannot be read, or it has not these tensors with as many rows.
    """
    if not path.is_dir():
        return held_out({"train": _read(path, inputs, targets)}, _WHAT)
    return parts_of(path, lambda file, _: _read(file, inputs, targets), what=_WHAT, endings=_ENDINGS)


def _read(file: Path, inputs: str, targets: str) -> Dataset[Any]:
    if file.suffix not in _ENDINGS or not file.is_file():
        raise DataError(
            f"{_WHAT}: {file} is no file of {' or '.join(_ENDINGS)}; set path to one, or to a folder of them"
        )
    with blame(DataError, f"{_WHAT}: {file} cannot be read", then="Write it again; pickled objects are not read."):
        found = _tensors(file, (inputs, targets))
    missing = [name for name in (inputs, targets) if name not in found]
    if missing:
        raise DataError(
            f"{_WHAT}: {file} has no tensor {missing[0]!r}, it has {', '.join(sorted(found)) or 'none'}; set the "
            f"arguments inputs and targets to their names"
        )
    values, aims = found[inputs], found[targets]
    if not values.ndim or not aims.ndim or len(values) != len(aims) or not len(values):
        raise DataError(
            f"{_WHAT}: {file}: {inputs} has the shape {tuple(values.shape)}, {targets} {tuple(aims.shape)}; give one "
            f"row of each for every example"
        )
    return TensorDataset(values, aims)


def _tensors(file: Path, wanted: tuple[str, str]) -> dict[str, Any]:
    """Name -> tensor, of all in a file; what is not wanted is not looked at, as it may be names of classes."""
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(file))
    with np.load(file, allow_pickle=False) as found:
        return {name: _single(found[name]) if name in wanted else None for name in found.files}


def _single(array: Any) -> Tensor:
    """A tensor; of double precision, numpy's usual, in single precision, as networks are."""
    tensor = torch.from_numpy(array)
    return tensor.float() if tensor.dtype == torch.float64 else tensor
