"""Train, validation and test of a folder that holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Subset

from autoprune.errors import ConfigError, DataError

NAMES = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
HELD_OUT = 0.1
"""Share of train that is for validation, where no validation is given."""


def parts_of(
    folder: Path, read: Callable[[Path, str], Dataset[Any]], *, what: str, endings: Iterable[str] = ("",)
) -> dict[str, Dataset[Any]]:
    """The parts that lie in a folder; without a validation part every tenth example of train, drawn once, is for that.

    Args:
        folder: with `train`, maybe `validation` or `val`, maybe `test` in it.
        read: (folder or file of a part, role) -> the part.
        what: the data set, for messages.
        endings: of files; "" for folders.

    Raises:
        DataError: there is no train.
    """
    found: dict[str, Dataset[Any]] = {}
    for role, names in NAMES.items():
        places = [folder / f"{name}{ending}" for name in names for ending in endings]
        place = next((one for one in places if one.exists()), None)
        if place is not None:
            found[role] = read(place, role)
        elif role == "train":
            listed = ", ".join(one.name for one in places)
            raise DataError(f"{what}: {folder} must be a folder with {listed} in it; set path to that folder")
    return found if "validation" in found else held_out(found, what)


def held_out(parts: dict[str, Dataset[Any]], what: str) -> dict[str, Dataset[Any]]:
    """The same parts, some of train for validation; raises DataError where train has less than two examples."""
    train: Any = parts["train"]
    if len(train) < 2:
        raise DataError(f"{what}: train has {len(train)} examples; give at least two, or a validation part")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
    kept = max(1, round(HELD_OUT * len(train)))
    return {**parts, "train": Subset(train, order[kept:]), "validation": Subset(train, order[:kept])}


def check_size(size: object, what: str) -> None:
    """Check a size in pixels; raises ConfigError where it is none."""
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise ConfigError(f"{what}: size must be at least 1 pixel, a whole number, or null, got {size!r}")
