"""A space as JSON, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from autoprune.errors import SpaceError
from autoprune.space.groups import (
    AffineSize,
    AxisLayout,
    FrozenPart,
    Operation,
    SearchSpace,
    TensorLayout,
    WidthGroup,
)

FORMAT = 1


def to_json(space: SearchSpace) -> dict[str, Any]:
    """Return the space as plain lists, strings and numbers; equal axes are written once."""
    layouts: dict[int, int] = {}
    axes: list[dict[str, list[int]]] = []

    def index(axis: AxisLayout | None) -> int | None:
        if axis is None:
            return None
        if id(axis) not in layouts:
            layouts[id(axis)] = len(axes)
            axes.append({"group": axis.group.tolist(), "channel": axis.channel.tolist()})
        return layouts[id(axis)]

    tensors = [
        {**{k: v for k, v in vars(t).items() if k != "axes"}, "axes": [index(axis) for axis in t.axes]}
        for t in space.tensors
    ]
    return {
        "format": FORMAT,
        "groups": [asdict(group) for group in space.groups],
        "frozen": [asdict(part) for part in space.frozen],
        "operations": [asdict(operation) for operation in space.operations],
        "axes": axes,
        "tensors": tensors,
        "notes": list(space.notes),
    }


def from_json(data: dict[str, Any]) -> SearchSpace:
    """Return the space that `to_json` wrote.

    Raises:
        SpaceError: the data is of another format or incomplete.
    """
    if data.get("format") != FORMAT:
        raise SpaceError(f"space file of format {data.get('format')!r}; this version reads format {FORMAT}")
    try:
        axes = [AxisLayout(np.array(a["group"]), np.array(a["channel"])) for a in data["axes"]]
        return SearchSpace(
            tuple(WidthGroup(**_tuples(group)) for group in data["groups"]),
            tuple(FrozenPart(**part) for part in data["frozen"]),
            tuple(_operation(operation) for operation in data["operations"]),
            tuple(
                TensorLayout(**_tuples({**t, "axes": [None if a is None else axes[a] for a in t["axes"]]}))
                for t in data["tensors"]
            ),
            tuple(data.get("notes", ())),
        )
    except (KeyError, TypeError, IndexError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise SpaceError(f"space file is incomplete or damaged ({what}); trace it anew") from error


def _operation(data: dict[str, Any]) -> Operation:
    sizes = tuple(AffineSize(s["constant"], tuple((g, m) for g, m in s["terms"])) for s in data["sizes"])
    return Operation(data["layer"], data["kind"], data["coefficient"], sizes)


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
