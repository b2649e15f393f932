"""A space as JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from autoprune.errors import SpaceError
from autoprune.space.groups import (
    AxisLayout,
    Block,
    FrozenPart,
    LayerBits,
    LayerDensity,
    LayerFactors,
    Resolution,
    SearchSpace,
    StepLayout,
    TensorLayout,
    WidthGroup,
)
from autoprune.space.serial_checks import check_json
from autoprune.space.sizes import Activation, AffineSize, KernelCall, Operation
from autoprune.texts import printable

FORMAT = 3
_READABLE = (1, 2, 3, 4)  # 1 knows neither graphs nor tied sets, 2 neither activations nor calls
_OF_DENSITIES = (
    4  # only spaces of them, of ranks, bits or resolutions are written so: older versions would read them as widths
)


def to_json(space: SearchSpace, *, origin: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the space as plain lists, strings and numbers; equal axes are written once.

    Args:
        space: any space.
        origin: what its graph was traced from; kept beside a space of graph form, see `origin.full_network`.
    """
    numbers: dict[tuple[bytes, bytes], int] = {}
    axes: list[dict[str, list[int]]] = []

    def number(axis: AxisLayout | None) -> int | None:
        if axis is None:
            return None
        content = (axis.group.astype(np.int64).tobytes(), axis.channel.astype(np.int64).tobytes())
        if content not in numbers:
            numbers[content] = len(axes)
            axes.append({"group": axis.group.tolist(), "channel": axis.channel.tolist()})
        return numbers[content]

    tensors = [{**vars(t), "axes": [number(axis) for axis in t.axes]} for t in space.tensors]
    graph = space.form == "graph"  # layouts of all values serve the graph alone
    steps = [[s.name, [[dim, number(axis)] for dim, axis in s.axes]] for s in space.steps] if graph else []
    sizes = _SizeTable()
    return {
        "format": _OF_DENSITIES if space.densities or space.factors or space.bits or space.resolution else FORMAT,
        "form": space.form,
        "groups": [asdict(group) for group in space.groups],
        "frozen": [asdict(part) for part in space.frozen],
        "operations": [asdict(operation) for operation in space.operations],
        "axes": axes,
        "tensors": tensors,
        "steps": steps,
        "blocks": [asdict(block) for block in space.blocks],
        **({"factors": [asdict(factors) for factors in space.factors]} if space.factors else {}),
        **({"resolution": asdict(space.resolution)} if space.resolution else {}),
        **({"bits": [asdict(bits) for bits in space.bits]} if space.bits else {}),
        **({"densities": [asdict(density) for density in space.densities]} if space.densities else {}),
        "activations": [{**_fields(a), "sizes": sizes.numbers(a.sizes)} for a in space.activations],
        "calls": [{**_fields(c), "weights": [sizes.numbers(w) for w in c.weights]} for c in space.calls],
        "sizes": sizes.rows,
        "notes": list(space.notes),
        "origin": dict(origin) if origin and graph else None,
    }


def from_json(data: dict[str, Any]) -> SearchSpace:
    """Return the space that `to_json` wrote.

    Raises:
        SpaceError: the data is of another format or incomplete.
    """
    if type(data.get("format")) is not int or data["format"] not in _READABLE:
        found = printable(repr(data.get("format")), 60)
        raise SpaceError(f"space file of format {found}; this version reads {' and '.join(map(str, _READABLE))}")
    try:
        check_json(data)
        axes = [AxisLayout(np.array(a["group"]), np.array(a["channel"])) for a in data["axes"]]
        sizes = [AffineSize(constant, _nested(terms)) for constant, terms in data.get("sizes", ())]
        return SearchSpace(
            tuple(WidthGroup(**_tuples(group)) for group in data["groups"]),
            tuple(FrozenPart(**part) for part in data["frozen"]),
            tuple(_operation(operation) for operation in data["operations"]),
            tuple(
                TensorLayout(**_tuples({**t, "axes": [None if a is None else axes[a] for a in t["axes"]]}))
                for t in data["tensors"]
            ),
            tuple(data.get("notes", ())),
            tuple(StepLayout(name, tuple((dim, axes[a]) for dim, a in at)) for name, at in data.get("steps", ())),
            _form(data.get("form", "module")),
            tuple(Block(**_tuples(block)) for block in data.get("blocks", ())),
            tuple(_activation(activation, sizes) for activation in data.get("activations", ())),
            tuple(_call(call, sizes) for call in data.get("calls", ())),
            resolution=_resolution(data.get("resolution")),
            bits=tuple(LayerBits(**_tuples(bits)) for bits in data.get("bits", ())),
            factors=tuple(LayerFactors(**_tuples(factors)) for factors in data.get("factors", ())),
            densities=tuple(LayerDensity(**_tuples(density)) for density in data.get("densities", ())),
        )
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError) as error:
        what = printable(f"{type(error).__name__}: {error}", 400)
        raise SpaceError(f"space file is incomplete or damaged ({what}); trace it anew") from error


class _SizeTable:
    """Equal sizes are written once."""

    def __init__(self) -> None:
        self.rows: list[list[Any]] = []
        self._known: dict[AffineSize, int] = {}

    def numbers(self, sizes: Sequence[AffineSize]) -> list[int]:
        for size in sizes:
            if size not in self._known:
                self._known[size] = len(self.rows)
                self.rows.append([size.constant, [list(term) for term in size.terms]])
        return [self._known[size] for size in sizes]


def _fields(value: Activation | KernelCall) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _activation(data: dict[str, Any], sizes: Sequence[AffineSize]) -> Activation:
    return Activation(**{**data, "sizes": tuple(sizes[number] for number in data["sizes"])})


def _call(data: dict[str, Any], sizes: Sequence[AffineSize]) -> KernelCall:
    weights = tuple(tuple(sizes[number] for number in weight) for weight in data["weights"])
    return KernelCall(**{name: _nested(value) for name, value in data.items() if name != "weights"}, weights=weights)


def _nested(value: Any) -> Any:
    """Lists as tuples, at every depth."""
    return tuple(map(_nested, value)) if isinstance(value, list) else value


def _resolution(data: Mapping[str, Any] | None) -> Resolution | None:
    return None if data is None else Resolution(**{name: _nested(value) for name, value in data.items()})


def _form(given: str) -> Literal["module", "graph"]:
    if given not in ("module", "graph"):
        raise ValueError(f"form {given!r}")
    return "graph" if given == "graph" else "module"


def _operation(data: dict[str, Any]) -> Operation:
    sizes = tuple(AffineSize(s["constant"], tuple((g, m) for g, m in s["terms"])) for s in data["sizes"])
    return Operation(data["layer"], data["kind"], data["coefficient"], sizes)


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
