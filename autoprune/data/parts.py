"""Train, validation and test of a folder that holds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, Subset

from autoprune.data.pictures import MOST_PIXELS
from autoprune.errors import ConfigError, DataError, shortened

NAMES = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}
MISNAMED = ("valid", "dev", "eval")
"""What others call a validation part."""

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
        DataError: there is no train, or see `place_of`.
    """
    endings = tuple(endings)
    found: dict[str, Dataset[Any]] = {}
    for role, names in NAMES.items():
        place = place_of(folder, role, what=what, endings=endings)
        if place is not None:
            found[role] = read(place, role)
        elif role == "train":
            listed = ", ".join(f"{name}{ending}" for name in names for ending in endings)
            raise DataError(f"{what}: {folder} must be a folder with {listed} in it; set path to that folder")
    return found if "validation" in found else held_out(found, what)


def place_of(folder: Path, role: str, *, what: str, endings: Iterable[str] = ("",)) -> Path | None:
    """The folder or file of a part; None where there is none.

    Raises:
        DataError: there are several, it is a pipe or the like, or a validation part has a name that is not looked for.
    """
    endings = tuple(endings)
    found = [place for name in NAMES[role] for ending in endings if (place := folder / f"{name}{ending}").exists()]
    if len(found) > 1:
        names = " and ".join(place.name for place in found)
        raise DataError(f"{what}: {folder} has {names}, which both are the part {role}; leave one of them there")
    if not found and role == "validation":
        others = (folder / f"{name}{ending}" for name in MISNAMED for ending in endings)
        other = next((place for place in others if place.exists()), None)
        if other is not None:
            to = f"{role}{other.suffix}"
            raise DataError(f"{what}: {other} is not read by this name; call it {to}, or put it elsewhere")
    for place in found:
        kind = "file" if place.suffix else "folder"
        if not (place.is_file() if place.suffix else place.is_dir()):
            raise DataError(f"{what}: {place} is no {kind}; put a {kind} there")
    return next(iter(found), None)


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
        given = shortened(repr(size), 60)
        raise ConfigError(f"{what}: size must be at least 1 pixel, a whole number, or null, got {given}")
    if size is not None and size**2 > MOST_PIXELS:
        raise ConfigError(f"{what}: size must be at most {math.isqrt(MOST_PIXELS):,} pixels, got {size:,}")
