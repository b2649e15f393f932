"""Input and target of single examples, whatever form they come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from autoprune.errors import DataError, shortened

TARGETS = ("target", "targets", "label", "labels", "mask", "annotation", "objects")
"""Names of targets in examples that are mappings, the first that is there."""


@final
class PairedRows(Dataset[Any]):
    """Rows of dictionaries as pairs (input, target), see `pair_of`.

    Args:
        rows: has a length and gives a dictionary for each number from 0 on.
    """

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        return pair_of(self._rows[int(number)])


def pair_of(example: Any, target_of: Callable[[Any], Any] | None = None) -> tuple[Any, Any]:
    """Input and target of one example, pictures and arrays as tensors.

    Args:
        example: (input, target); or a mapping as `datasets` gives them: the first name of `TARGETS` is the target, and
            what is left the input, a mapping of keyword inputs where it is more than one.
        target_of: makes the target of what the example has; None: `as_tensors`.

    Raises:
        DataError: something else.
    """
    read_target = target_of or as_tensors
    if isinstance(example, Mapping):
        name = next((name for name in TARGETS if name in example), None)
        inputs = {key: as_tensors(value) for key, value in example.items() if key != name}
        if name is not None and inputs:
            return (next(iter(inputs.values())) if len(inputs) == 1 else inputs), read_target(example[name])
        raise DataError(
            f"an example has the keys {', '.join(map(str, example))}; one of {', '.join(TARGETS)} must be its target, "
            f"and another its input. Rename or leave out columns"
        )
    if isinstance(example, tuple | list) and len(example) == 2:
        return as_tensors(example[0]), read_target(example[1])
    raise DataError(
        f"an example must be (input, target) or a mapping that names them, got {type(example).__name__}; several "
        f"inputs are a tuple or a mapping in it, ((first, second), target)"
    )


def as_tensors(value: Any) -> Any:
    """Pictures as (C, H, W) floats from 0 to 1, arrays, numbers and lists of them as tensors; all else as it is.

    Raises:
        DataError: a list of numbers that are no array.
    """
    if isinstance(value, Tensor | str):
        return value
    if hasattr(value, "getbands") and hasattr(value, "convert"):  # a picture of Pillow
        pixels = torch.from_numpy(np.array(value if value.mode in ("L", "RGB") else value.convert("RGB")))
        return (pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)).float() / 255
    if isinstance(value, np.ndarray | np.generic):
        return torch.as_tensor(value)
    if isinstance(value, Mapping):
        return {key: as_tensors(one) for key, one in value.items()}
    if isinstance(value, tuple):
        return tuple(as_tensors(one) for one in value)
    if isinstance(value, list) and _is_numeric(value):
        try:
            return torch.tensor(value)
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            told = shortened(str(error), 200)
            raise DataError(
                f"{shortened(repr(value), 80)} is no array of numbers ({told}); give lists of one length, of numbers "
                f"below 2^63"
            ) from error
    return value


def _is_numeric(value: list[Any]) -> bool:
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, int | float)
