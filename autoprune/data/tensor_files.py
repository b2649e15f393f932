"""Plain tensors in files: safetensors or npz, one for each part, or one for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from autoprune.data.array_files import read_arrays
from autoprune.data.parts import held_out, parts_of
from autoprune.errors import ConfigError, DataError, shortened

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
        ConfigError: a name that is no text.
    """
    if not path.is_dir():
        return held_out({"train": _read(path, inputs, targets)}, _WHAT)
    return parts_of(path, lambda file, _: _read(file, inputs, targets), what=_WHAT, endings=_ENDINGS)


def _read(file: Path, inputs: str, targets: str) -> Dataset[Any]:
    for name, given in (("inputs", inputs), ("targets", targets)):
        if not isinstance(given, str):
            raise ConfigError(f"{_WHAT}: {name} must be the name of a tensor, got {shortened(repr(given), 80)}")
    if file.suffix not in _ENDINGS or not file.is_file():
        raise DataError(
            f"{_WHAT}: {file} is no file of {' or '.join(_ENDINGS)}; set path to one, or to a folder of them"
        )
    found = read_arrays(file, what=_WHAT, wanted=(inputs, targets))
    missing = [name for name in (inputs, targets) if name not in found]
    if missing:
        raise DataError(
            f"{_WHAT}: {file} has no tensor {missing[0]!r}, it has {', '.join(sorted(found)) or 'none'}; set the "
            f"arguments inputs and targets to their names"
        )
    values, aims = (found[name] for name in (inputs, targets))
    assert values is not None  # both are wanted
    assert aims is not None
    if file.suffix == ".npz":
        values, aims = _single(values, f"{_WHAT}: {file}: {inputs}"), _single(aims, f"{_WHAT}: {file}: {targets}")
    if not values.ndim or not aims.ndim or len(values) != len(aims) or not len(values):
        raise DataError(
            f"{_WHAT}: {file}: {inputs} has the shape {tuple(values.shape)}, {targets} {tuple(aims.shape)}; give one "
            f"row of each for every example"
        )
    return TensorDataset(values, aims)


def _single(tensor: Tensor, where: str) -> Tensor:
    """A tensor of numpy's usual double precision in single precision, as networks are.

    Raises:
        DataError: single precision cannot hold it.
    """
    if tensor.dtype != torch.float64:
        return tensor
    single = tensor.float()
    if bool((single.isinf() & tensor.isfinite()).any()):
        raise DataError(
            f"{where}: it has numbers beyond {torch.finfo(torch.float32).max:.3g}, the most that single "
            f"precision holds; scale them"
        )
    return single
