"""What `autoprune space` and `autoprune cost` print, as tables for people and as JSON for programs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.bar import Bar
from rich.table import Table

from autoprune.api import Space
from autoprune.errors import ConfigError
from autoprune.space.groups import WidthGroup, Widths, axis_size


def space_json(space: Space) -> dict[str, Any]:
    """Groups with shares of the cost they touch, and what is frozen."""
    flops, params = _shares(space)
    return {
        "groups": [
            {
                "name": group.name,
                "width": group.width,
                "choices": list(group.choices),
                "members": list(group.members),
                "residual": group.residual,
                "flops_share": flops[index],
                "params_share": params[index],
            }
            for index, group in enumerate(space.groups)
        ],
        "frozen": [{"name": p.name, "channels": p.channels, "reason": p.reason} for p in space.frozen],
        "cost": space.cost(space.full),
    }


def space_tables(space: Space) -> list[Any]:
    """Two tables and a line with totals."""
    flops, params = _shares(space)
    groups = _table("Width groups", "group", "layers", numbers=("width", "choices", "FLOPs", "params"))
    for index, group in enumerate(space.groups):
        layers = ", ".join(group.members[:3]) + (f" and {len(group.members) - 3} more" * (len(group.members) > 3))
        groups.add_row(
            group.name + (" (residual)" if group.residual else ""),
            layers,
            str(group.width),
            _choices(group),
            f"{flops[index]:.1%}",
            f"{params[index]:.1%}",
        )
    frozen = _table("Frozen", "layer", "reason", numbers=("channels",))
    for part in space.frozen:
        frozen.add_row(part.name, part.reason, str(part.channels))
    cost = space.cost(space.full)
    return [
        groups,
        frozen,
        f"{len(space.groups)} groups; {cost['flops']:,} FLOPs (one multiply-add is one), {cost['params']:,} "
        "parameters. "
        "FLOPs and params: share of the full network that a group's layers touch; a layer between two groups counts "
        "in both.",
    ]


def cost_json(space: Space, widths: Widths) -> dict[str, Any]:
    """Metric -> cost."""
    return dict(space.cost(widths))


def cost_tables(space: Space, widths: Widths) -> list[Any]:
    """A table of layers and a line with totals."""
    rows = _layer_costs(space, widths)
    largest = max([1, *(flops for flops, _ in rows.values())])
    layers = _table("Cost by layer", "layer", numbers=("FLOPs", "parameters"))
    layers.add_column("of the largest layer's FLOPs", min_width=4, max_width=24)
    for layer, (flops, params) in rows.items():
        layers.add_row(layer, f"{flops:,}", f"{params:,}", Bar(largest, 0, flops))
    cost, full = space.cost(widths), space.cost(space.full)
    totals = ", ".join(f"{name} {cost[name]:,} ({cost[name] / full[name]:.1%} of the full network)" for name in cost)
    return [layers, f"{totals}. One multiply-add is one FLOP."]


def parse_widths(text: str, space: Space) -> Widths:
    """`full`, or `uniform:RATIO`.

    Raises:
        ConfigError: another form; SpaceError: a ratio outside (0, 1].
    """
    if text == "full":
        return space.full
    kind, _, ratio = text.partition(":")
    try:
        value = float(ratio)
    except ValueError:
        value = math.nan
    if kind != "uniform" or math.isnan(value):
        raise ConfigError(f"--widths {text!r}: give 'full' or 'uniform:RATIO', for example uniform:0.5")
    return space.uniform(value)


def _table(title: str, *texts: str, numbers: tuple[str, ...]) -> Table:
    """A table whose texts fold on a narrow terminal, to no less than 8 letters; its numbers stay whole."""
    table = Table(title=title, title_justify="left")
    for header in texts:
        table.add_column(header, overflow="fold", min_width=8)
    for header in numbers:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def _layer_costs(space: Space, widths: Widths) -> dict[str, tuple[int, int]]:
    """Layer -> (FLOPs, parameters), in graph order; norms and other layers without products have no FLOPs."""
    flops: dict[str, int] = defaultdict(int)
    params: dict[str, int] = defaultdict(int)
    for operation in space.search_space.operations:
        flops[operation.layer] += operation.coefficient * math.prod(size(widths) for size in operation.sizes)
    for tensor in space.search_space.tensors:
        if tensor.kind == "parameter":
            sizes = [
                length if axis is None else axis_size(axis, space.groups)(widths)
                for length, axis in zip(tensor.shape, tensor.axes, strict=True)
            ]
            params[tensor.name.rpartition(".")[0] or tensor.name] += math.prod(sizes)
    return {layer: (flops.get(layer, 0), params.get(layer, 0)) for layer in dict.fromkeys([*flops, *params])}


def _shares(space: Space) -> tuple[list[float], list[float]]:
    """Per group, the share of all FLOPs and of all parameters in tensors and products that the group touches."""
    n = len(space.groups)
    flops, params = [0.0] * n, [0.0] * n
    total_flops = total_params = 0
    for operation in space.search_space.operations:
        value = operation.coefficient * math.prod(size(space.full) for size in operation.sizes)
        total_flops += value
        for group in {g for size in operation.sizes for g, _ in size.terms}:
            flops[group] += value
    for tensor in space.search_space.tensors:
        if tensor.kind == "parameter":
            value = math.prod(tensor.shape)
            total_params += value
            for group in {
                int(g) for axis in tensor.axes if axis is not None for g in set(axis.group.tolist()) if g >= 0
            }:
                params[group] += value
    return _over(flops, total_flops), _over(params, total_params)


def _over(values: Sequence[float], total: int) -> list[float]:
    return [value / max(1, total) for value in values]


def _choices(group: WidthGroup) -> str:
    first, last = group.choices[0], group.choices[-1]
    if len(group.choices) == last - first + 1:
        return f"{first}–{last}"
    if len(group.choices) <= 6:
        return ", ".join(map(str, group.choices))
    return f"{first}, {group.choices[1]}, …, {last} ({len(group.choices)})"
