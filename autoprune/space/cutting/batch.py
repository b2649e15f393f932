"""How a traced graph takes other batch sizes than the one of its example."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from autoprune.errors import TraceError
from autoprune.space.tracing.program import Example, Prepare, Program, record


def batch_behaviour(
    model: nn.Module, program: Program, example: Example, *, prepare: Prepare = nn.Module.eval
) -> tuple[int | None, dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Find what grows with the batch by tracing once more with two batches.

    Args:
        model: the traced model; only read.
        program: its graph.
        example: the inputs it was traced with.
        prepare: as the graph was recorded with.

    Returns:
        The batch size of the example; value name -> dimensions that grow with it; node name -> positions among its flat
        arguments of integers that do. (None, {}, {}) where the graph holds on to its batch size.
    """
    nothing: tuple[None, dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]] = (None, {}, {})
    batch = next((v.shape[0] for v in pytree.tree_leaves(example) if isinstance(v, Tensor) and v.ndim), None)
    if not batch:
        return nothing

    def twice(value: Any) -> Any:
        return torch.cat([value, value]) if isinstance(value, Tensor) and value.ndim and len(value) == batch else value

    try:
        other = record(model, pytree.tree_map(twice, example), prepare=prepare)
    except TraceError:
        return nothing
    if [n.target for n in program.nodes if n.op != "placeholder"] != [
        n.target for n in other.nodes if n.op != "placeholder"
    ]:
        return nothing
    pairs = zip(program.constants.values(), other.constants.values(), strict=False)
    if any(one.shape != two.shape or not torch.equal(one, two) for one, two in pairs):
        return nothing  # made from the batch size
    growing: dict[str, tuple[int, ...]] = {}
    counts: dict[str, tuple[int, ...]] = {}
    for node, twin in zip(program.nodes, other.nodes, strict=True):
        for name, shape, double in _shapes(node, twin):
            if any(m not in (n, 2 * n) for n, m in zip(shape, double, strict=True)):
                return nothing
            growing[name] = tuple(d for d, (n, m) in enumerate(zip(shape, double, strict=True)) if m != n)
        flat, flat_twin = (pytree.tree_leaves((tuple(n.args), dict(n.kwargs))) for n in (node, twin))
        changed = [i for i, (a, b) in enumerate(zip(flat, flat_twin, strict=True)) if isinstance(a, int) and a != b]
        if any(isinstance(x, float) and x != y for x, y in zip(flat, flat_twin, strict=True)):
            return nothing
        if node.op == "call_function" and changed:
            if any(flat_twin[i] != 2 * flat[i] for i in changed):
                return nothing
            counts[node.name] = tuple(changed)
    return batch, {name: dims for name, dims in growing.items() if dims}, counts


def _shapes(node: fx.Node, twin: fx.Node) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """(name, shape, shape of the twin) of every tensor that two corresponding nodes make."""
    made, other = node.meta.get("val"), twin.meta.get("val")
    if isinstance(made, Tensor) and isinstance(other, Tensor):
        return [(node.name, tuple(made.shape), tuple(other.shape))]
    if isinstance(made, list | tuple) and isinstance(other, list | tuple):
        pairs = enumerate(zip(made, other, strict=False))
        return [(f"{node.name}.{i}", tuple(a.shape), tuple(b.shape)) for i, (a, b) in pairs if isinstance(a, Tensor)]
    return []
