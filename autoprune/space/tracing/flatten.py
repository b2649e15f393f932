"""A graph as tracers leave it, without regions and dead code."""

from __future__ import annotations

import operator
from collections.abc import Collection

import torch
from torch import Tensor, fx

from autoprune.errors import TraceError
from autoprune.space.tracing.functions import FunctionCall, drop_what_cannot_run, mark

_REGIONS = ("wrap_with_autocast", "wrap_with_set_grad_enabled")


def flatten(graph: fx.Graph, constants: Collection[str]) -> tuple[str, ...]:
    """Put the content of regions (autocast, no_grad) in their place, and drop what nobody reads.

    Nodes remember whether gradients were switched off for them (`meta["grad"]`), and functions with a backward of
    their own are marked; returns the names of those that cannot be.
    """
    _note_gradients(graph)
    while (region := _next_region(graph)) is not None:
        _inline(graph, region)
    mark(graph)
    _drop_unread(graph)
    lost = drop_what_cannot_run(graph, constants)
    _drop_unread(graph)
    if any(node.op == "get_attr" for node in graph.nodes):
        raise NotImplementedError("forward makes objects that are no tensors (a random generator)")
    return lost


def note_shapes(graph: fx.Graph) -> None:
    """Keep traced shapes as plain numbers: torch.jit.trace, and with it fvcore, cannot read those of fake tensors.

    So are sizes that depend on values (`bincount`), where something that reads them leaves one possibility.
    """
    for node in graph.nodes:
        made = node.meta.get("val")
        if isinstance(made, Tensor) and any(isinstance(n, torch.SymInt) for n in made.shape):
            numbers = [tuple(int(n) for n in many) for many in (made.shape, made.stride())]
            made = node.meta["val"] = torch.empty_strided(*numbers, dtype=made.dtype, device="meta")
        parts = made if isinstance(made, list | tuple) else [made]
        shapes = [tuple(int(n) for n in part.shape) if isinstance(part, Tensor) else () for part in parts]
        node.meta["shapes"] = shapes


def _next_region(graph: fx.Graph) -> fx.Node | None:
    return next((n for n in graph.nodes if isinstance(n.target, torch._ops.HigherOrderOperator)), None)


def _inline(graph: fx.Graph, region: fx.Node) -> None:
    module = graph.owning_module
    body = next((a for a in region.args if isinstance(a, fx.Node) and a.op == "get_attr"), None)
    if body is None or str(region.target) not in _REGIONS:
        raise TraceError(f"{region.target} has no flat form")
    inner = getattr(module, str(body.target))
    operands = region.args[region.args.index(body) + 1 :]
    mapping = dict(zip((n for n in inner.graph.nodes if n.op == "placeholder"), operands, strict=True))
    with graph.inserting_before(region):
        result = graph.graph_copy(inner.graph, mapping)
    grad = region.args[0] if str(region.target) == "wrap_with_set_grad_enabled" else region.meta.get("grad")
    if grad is not None:
        for node in inner.graph.nodes:
            if node.op == "call_function":
                mapping[node].meta["grad"] = grad
    outputs = result if isinstance(result, tuple | list) else (result,)
    for user in list(region.users):
        if user.target is operator.getitem:
            user.replace_all_uses_with(outputs[user.args[1]])  # type: ignore[index]
            graph.erase_node(user)
    if region.users:
        region.replace_all_uses_with(outputs[0])
    graph.erase_node(region)


def _note_gradients(graph: fx.Graph) -> None:
    """What make_fx leaves of `no_grad`: calls that switch gradients off and on."""
    grad = None
    for node in list(graph.nodes):
        if node.target is torch._C._set_grad_enabled:
            grad = None if node.args[0] else False
        elif grad is not None and node.op == "call_function":
            node.meta["grad"] = grad


def _drop_unread(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        pure = node.op == "get_attr" or (node.op == "call_function" and not _has_effect(node))
        if pure and not node.users:
            graph.erase_node(node)


def _has_effect(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return isinstance(node.target, FunctionCall) or (schema is not None and schema.is_mutable)
