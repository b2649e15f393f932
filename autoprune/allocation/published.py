"""Widths that somebody published, from a file: TAS (Dong and Yang 2019, arXiv 1905.09717), MetaPruning and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from autoprune.allocation.parts.path import repaired
from autoprune.allocation.parts.scores import one_of
from autoprune.config.bounded_files import given_path, shown_path
from autoprune.config.json_reader import read_plain_json
from autoprune.config.yaml_reader import read_yaml
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError, shortened, suggest
from autoprune.space.groups import FloatArray, SearchSpace, Widths

Missing: TypeAlias = Literal["error", "full", "mean"]


def published(
    domain: BudgetedSpace, scores: Sequence[FloatArray] = (), *, file: str, missing: Missing = "error"
) -> Widths:
    """Return the widths that a YAML or JSON file gives, put onto the budget.

    The file maps layers to widths, `layer1.0.conv1: 12`, or lists widths in the order of the groups. A layer is named
    as a group or as any of its members; members of one group must agree, as they are cut together. Widths off the
    allowed choices are rounded, and widths of another budget are scaled by one factor, by the repair: inside 0.97 to
    1.00 of the budget they stay as they were. Scores are not looked at.

    Args:
        domain: the space under its budget.
        scores: not looked at.
        file: path, relative to the current folder, in a job also to that of the job file.
        missing: what a group has that the file does not name: "error", "full" width, or the "mean" ratio of the others.

    Raises:
        ConfigError: the file cannot be read, names what is not there, contradicts itself, or lacks a group.
    """
    one_of("published", "missing", missing, ("error", "full", "mean"))
    path = given_path(file, "published: file")
    what = f"published: {shown_path(Path(file))}"
    given = _read(path, what)
    widths = (
        _by_group(domain.space, given, what) if isinstance(given, Mapping) else _in_order(domain.space, given, what)
    )
    full = np.array(domain.space.full, dtype=np.float64)
    lacking = [group.name for group, width in zip(domain.space.groups, widths, strict=True) if np.isnan(width)]
    if lacking and missing == "error":
        raise ConfigError(
            f"{what} lacks {len(lacking)} of {len(widths)} groups: {', '.join(lacking[:6])}"
            f"{', …' if len(lacking) > 6 else ''}; add them, or set missing to full or mean"
        )
    usual = 1.0 if missing == "full" or len(lacking) == len(widths) else float(np.nanmean(widths / full))
    held = ~domain.space.kinds.scales
    return repaired(domain, np.where(np.isnan(widths), np.where(held, 1.0, usual) * full, widths))


def _read(path: Path, what: str) -> Any:
    try:
        return read_plain_json(path) if path.suffix == ".json" else read_yaml(path)
    except ConfigError as error:
        raise ConfigError(f"{what} cannot be read or is neither YAML nor JSON: {error}") from error


def _by_group(space: SearchSpace, given: Mapping[Any, Any], what: str) -> FloatArray:
    places = {name: i for i, group in enumerate(space.groups) for name in group.members}
    places |= {group.name: i for i, group in enumerate(space.groups)}
    widths, said = np.full(len(space.groups), np.nan), dict[int, str]()
    for key, value in given.items():
        name = str(key)
        if name not in places:
            raise ConfigError(f"{what} gives a width for {name!r}, which cannot be cut.{suggest(name, places)}")
        index = places[name]
        width = _width(space, index, value, f"{what}: {name!r}")
        if index in said and widths[index] != width:
            raise ConfigError(
                f"{what} gives {said[index]!r} the width {widths[index]:g} and {name!r} {width:g}, but both are cut "
                f"together, in group {space.groups[index].name!r}; give them the same width"
            )
        widths[index], said[index] = width, name
    return widths


def _in_order(space: SearchSpace, given: Any, what: str) -> FloatArray:
    if not isinstance(given, list) or len(given) != len(space.groups):
        got = f"a list of {len(given)}" if isinstance(given, list) else type(given).__name__
        raise ConfigError(
            f"{what} must map layers to widths, or list one width for each of {len(space.groups)} groups; it "
            f"holds {got}"
        )
    return np.array([_width(space, i, value, f"{what}: number {i}") for i, value in enumerate(given)])


def _width(space: SearchSpace, index: int, value: Any, what: str) -> float:
    group = space.groups[index]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    least = "at least" if group.choices[0] == 0 else "above"
    if not number or not 0 <= value <= group.width or (value == 0 and least == "above"):
        told = shortened(repr(value), 60)
        raise ConfigError(f"{what} must be a number {least} 0 and at most {group.width}, the full width, got {told}")
    return float(value)
