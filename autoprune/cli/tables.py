"""What `autoprune space` and `autoprune cost` print, as tables for people and as JSON for programs."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from rich.bar import Bar
from rich.text import Text

from autoprune.api.search import Space
from autoprune.cli.rows import Rows
from autoprune.config.bounded_files import is_file
from autoprune.config.yaml_reader import read_yaml
from autoprune.cost.budget.limits import number
from autoprune.cost.memory.dtypes import MEGABYTE
from autoprune.cost.params import tensor_sizes
from autoprune.cost.shares import group_shares, prunable
from autoprune.errors import ConfigError, shortened, suggest
from autoprune.space.groups import WidthGroup, Widths
from autoprune.space.kinds import KINDS


def space_json(space: Space) -> dict[str, Any]:
    """Groups with shares of the cost they touch, what is frozen, and what the options left as it is."""
    shares = group_shares(space.search_space)
    return {
        "groups": [
            {
                "name": group.name,
                "kind": group.kind,
                "width": group.width,
                "tied": list(group.sets),
                "choices": list(group.choices),
                "members": list(group.members),
                "residual": group.residual,
                "flops_share": share["flops"],
                "params_share": share["params"],
            }
            for group, share in zip(space.groups, shares, strict=True)
        ],
        "frozen": [{"name": p.name, "channels": p.channels, "reason": p.reason} for p in space.frozen],
        "notes": list(space.search_space.notes),
        "form": space.search_space.form,
        "why_graph": space.search_space.why_graph,
        "prunable": prunable(space.search_space),
        "cost": space.cost(space.full),
    }


def space_tables(space: Space) -> list[Any]:
    """What can be cut, what stays and why, notes, and a line with totals."""
    groups = Rows("Width groups", ("group", "other layers"), ("width", "choices", "FLOPs", "params"))
    for group, share in zip(space.groups, group_shares(space.search_space), strict=True):
        groups.add(
            group.name + _kind(group),
            _others(group),
            _width(group),
            _choices(group),
            f"{share['flops']:.1%}",
            f"{share['params']:.1%}",
        )
    frozen = Rows("Frozen", ("layer", "reason"), ("channels",))
    for part in space.frozen:
        frozen.add(part.name, part.reason, str(part.channels))
    notes = [Text(f"Note: {note}.") for note in space.search_space.notes]
    return [groups, *([frozen] if space.frozen else []), *notes, _totals(space)]


def _totals(space: Space) -> Text:
    cost, share = space.cost(space.full), prunable(space.search_space)
    form = "the traced graph" if space.search_space.form == "graph" else "the model's own class"
    why = f" In the model's own class, {space.search_space.why_graph}." if space.search_space.why_graph else ""
    return Text(
        f"{len(space.groups)} groups; {cost['flops']:,} FLOPs (one multiply-add is one), {cost['params']:,} "
        "parameters. FLOPs and params: share of the full network that a group's layers touch; a layer between two "
        f"groups counts in both. All groups together touch {share['flops']:.1%} of the FLOPs and "
        f"{share['params']:.1%} of the parameters. A cut network is {form}.{why}"
    )


def cost_json(space: Space, widths: Widths) -> dict[str, Any]:
    """Metric -> cost, the same of the full network, the widths by group, and what each layer costs."""
    return {
        **space.cost(widths),
        "full": dict(space.cost(space.full)),
        "widths": space.search_space.by_name(widths),
        "layers": [{"layer": name, **vars(layer)} for name, layer in _layer_costs(space, widths).items()],
    }


def cost_tables(space: Space, widths: Widths) -> list[Any]:
    """A table of layers, with bars that show where the FLOPs are, and a line of totals for each metric."""
    rows, full = _layer_costs(space, widths), space.cost(space.full)
    all_flops = max(1, sum(layer.flops for layer in rows.values()))
    largest = max([1, *(layer.flops for layer in rows.values())])
    layers = Rows("Cost by layer", ("layer",), ("FLOPs", "share", "parameters", "output MB"), bar="where FLOPs are")
    for name, layer in rows.items():
        share, output = f"{layer.flops / all_flops:.1%}", f"{layer.output_mb:.3g}"
        layers.add(name, f"{layer.flops:,}", share, f"{layer.params:,}", output, bar=Bar(largest, 0, layer.flops))
    totals = [
        f"{name} {number(cost)} ({cost / full[name]:.1%} of the full network's {number(full[name])})"
        for name, cost in space.cost(widths).items()
    ]
    return [
        layers,
        *totals,
        "For one pass of the example input. One multiply-add is one FLOP; MB are 10^6 bytes; output MB is what the "
        "results of a layer take; peak_memory_mb is that of PyTorch on a CPU.",
    ]


def parse_widths(text: str, space: Space) -> Widths:
    """`full`, `uniform:RATIO`, or a file: group -> width as YAML or JSON, or the `architecture.yaml` of an export.

    Groups that a file leaves out stay full.

    Raises:
        ConfigError: another form, a file that cannot be read, or a group that the space does not have.
        SpaceError: a ratio outside (0, 1], or a width that its group does not allow.
    """
    if text == "full":
        return space.full
    kind, _, ratio = text.partition(":")
    try:
        value = float(ratio)
    except ValueError:
        value = math.nan
    if kind == "uniform" and not math.isnan(value):
        return space.uniform(value)
    if not is_file(Path(text)):
        raise ConfigError(
            f"--widths {shortened(text, 200)!r}: give 'full' or 'uniform:RATIO', for example uniform:0.5, or a "
            f"file that holds a width for each group (YAML, JSON, or the architecture.yaml of an export)"
        )
    return _widths_in(Path(text), space)


def _widths_in(path: Path, space: Space) -> Widths:
    try:
        content = read_yaml(path)
    except ConfigError as error:
        raise ConfigError(f"--widths {path}: cannot be read as YAML or JSON: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("widths"), dict):
        content = content["widths"]
    if not isinstance(content, dict):
        raise ConfigError(f"--widths {path}: must hold a width for each group, got {type(content).__name__}")
    names = [group.name for group in space.groups]
    for name in content:
        if name not in names:
            known = f"{', '.join(names[:6])}{', …' if len(names) > 6 else ''}"
            raise ConfigError(
                f"--widths {path}: this model has no group {name!r}; it has {known}.{suggest(name, names)}"
            )
    given = [content.get(group.name, group.width) for group in space.groups]
    widths: list[Any] = [w.get("kept") if isinstance(w, dict) else w for w in given]
    return space.search_space.check(widths)


@final
@dataclass
class _Layer:
    flops: int = 0
    params: int = 0
    output_mb: float = 0.0


def _layer_costs(space: Space, widths: Widths) -> dict[str, _Layer]:
    """Layer -> what it costs, in graph order; norms and other layers without products have no FLOPs."""
    inner = space.search_space
    layers: dict[str, _Layer] = defaultdict(_Layer)
    layers.update({call.layer: _Layer() for call in inner.calls})
    for operation in inner.operations:
        layers[operation.layer].flops += operation.coefficient * math.prod(size(widths) for size in operation.sizes)
    for tensor, sizes in tensor_sizes(inner):
        if tensor.kind == "parameter":
            layers[tensor.name.rpartition(".")[0] or tensor.name].params += math.prod(size(widths) for size in sizes)
    for call in inner.calls:
        for index in call.outputs if call.switch < 0 or widths[call.switch] else ():
            made = inner.activations[index]
            if made.storage == index:  # no view, nor written in place
                layers[call.layer].output_mb += made.bytes * math.prod(size(widths) for size in made.sizes) / MEGABYTE
    return {name or "(the model)": layer for name, layer in layers.items() if layer != _Layer()}


def _others(group: WidthGroup) -> str:
    layers = [layer for layer in group.members if layer != group.name]
    return ", ".join(layers[:3]) + (f" and {len(layers) - 3} more" * (len(layers) > 3))


def _kind(group: WidthGroup) -> str:
    label = KINDS[group.kind].label
    kinds = [label] * bool(label) + ["residual"] * group.residual
    return f" ({', '.join(kinds)})" if kinds else ""


def _width(group: WidthGroup) -> str:
    """The full width; for tied sets the full width of each, in units of which the choices count."""
    if not group.sets:
        return str(group.width)
    counts = {size: group.sets.count(size) for size in group.sets}
    sizes = [str(size) if count == 1 else f"{count}x{size}" for size, count in counts.items()]
    return f"{group.width} of {'+'.join(sizes)}"


def _choices(group: WidthGroup) -> str:
    first, *others = group.choices
    if not others:
        return str(first)
    steps = {b - a for a, b in zip(group.choices[:-1], others, strict=True)}
    if steps == {1}:
        return f"{first}–{others[-1]}"
    if len(others) <= 5:
        return ", ".join(map(str, group.choices))
    if len(steps) == 1:
        return f"{first}–{others[-1]} by {steps.pop()}"
    return f"{first}, {others[0]}, …, {others[-1]} ({len(group.choices)})"
