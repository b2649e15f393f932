"""Functions with a backward of their own (`torch.autograd.Function`) in a traced graph.

A graph holds what such a function's forward computes, and channels are followed through that; its backward is in no
graph. So a node before these calls remembers the function and what it was given: a network that runs the graph calls
the function there instead (straight-through estimators, gradient reversal).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, fx
from torch.autograd import Function
from torch.autograd.function import _SingleLevelFunction
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import CheckpointFunction

MARK = "autograd_function"
"""Operator name of the nodes that remember a function."""

_PLAIN = (type(None), bool, int, float, complex, str, torch.dtype, torch.device, torch.memory_format, torch.layout)


@final
class FunctionCall:
    """What a marking node calls: nothing in most uses of a graph; the function itself where it runs as a network.

    Attributes:
        function: the class.
        structure: of its positional and keyword arguments, whose leaves are the node's arguments.
        kept: position of a leaf -> what no graph can hold (a module, a constant tensor).
    """

    def __init__(self, function: type[Function], structure: Any, kept: dict[int, Any]) -> None:
        self.function, self.structure, self.kept = function, structure, kept
        self.__name__ = MARK

    def __call__(self, *leaves: Any) -> None:
        """Nothing: what the function's forward computes stands in the graph."""

    def apply(self, leaves: tuple[Any, ...]) -> list[Any]:
        """Call the function; return its flat outputs, then the leaves, some of which it may have written into."""
        given = [self.kept.get(i, leaf) for i, leaf in enumerate(leaves)]
        args, kwargs = pytree.tree_unflatten(given, self.structure)
        made = self.function.apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return [*pytree.tree_leaves(made), *leaves]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FunctionCall) and other.function is self.function

    def __hash__(self) -> int:
        return hash(self.function)

    def __repr__(self) -> str:
        return name_of_function(self.function)


def name_of_function(function: type[Function]) -> str:
    """Name as the user's code has it: `Sign.apply` belongs to "Sign"."""
    return function.__qualname__.rpartition("<locals>.")[2]


@final
class _Seen:
    """A call that was seen while tracing; nodes note it, so that it is found again however the graph is copied."""

    def __init__(self, function: type[Function], leaves: list[Any], structure: Any) -> None:
        self.function, self.leaves, self.structure = function, leaves, structure


@final
class _DataIsDetached(TorchFunctionMode):
    """Makes `tensor.data` a call that tracers see."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == Tensor.data.__get__:  # type: ignore[attr-defined]
            return args[0].detach()
        return func(*args, **(kwargs or {}))


@contextmanager
def watched() -> Iterator[None]:
    """Inside, tracers see which calls belong to which function, whoever holds its `apply`; checkpoints do nothing."""
    running: list[type[Function]] = []

    def apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        original: Callable[..., Any] = super(_SingleLevelFunction, cls).apply  # type: ignore[misc]
        if issubclass(cls, CheckpointFunction):  # run later once more, it gives what it gives now
            return args[0](*args[2:])
        mode = get_proxy_mode()
        if mode is None or running:
            return original(*args, **kwargs)
        running.append(cls)
        try:
            return _seen(cls, mode.tracer, original, args, kwargs)
        finally:
            running.pop()

    _SingleLevelFunction.apply = classmethod(apply)  # type: ignore[attr-defined]
    try:
        with _DataIsDetached():
            yield
    finally:
        del _SingleLevelFunction.apply  # type: ignore[attr-defined]


def _seen(cls: type[Function], tracer: Any, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    leaves, structure = pytree.tree_flatten((args, kwargs))
    seen = _Seen(cls, leaves, structure)
    for index, leaf in enumerate(leaves):
        node = _node_of(leaf, tracer)
        if node is not None:
            node.meta.setdefault("given", []).append((seen, index))
    before = next(reversed(tracer.graph.nodes))
    made, form = pytree.tree_flatten(original(*args, **kwargs))
    inside = _after(before)
    # what is handed through as it is needs a node to stand for it
    made = [torch.ops.aten.alias(o) if isinstance(o, Tensor) and _node_of(o, tracer) not in inside else o for o in made]
    inside = _after(before)
    for node in inside:
        node.meta["inside"] = seen
    for index, value in (*enumerate(leaves, len(made)), *enumerate(made)):  # leaves that are written into first
        node = _node_of(value, tracer)
        if node in inside:
            node.meta["yields"] = index
    return pytree.tree_unflatten(made, form)


def _after(node: fx.Node) -> list[fx.Node]:
    nodes = []
    while node.next.op != "root":
        node = node.next
        nodes.append(node)
    return nodes


def _node_of(value: Any, tracer: Any) -> Any:
    slot: Any = get_proxy_slot(value, tracer, None) if isinstance(value, Tensor) else None
    return slot.proxy.node if hasattr(slot, "proxy") else None


def mark(graph: fx.Graph) -> None:
    """Put a marking node before the calls of every function that was seen."""
    calls: dict[_Seen, list[fx.Node]] = {}
    given: dict[tuple[_Seen, int], fx.Node] = {}
    for node in graph.nodes:
        if "inside" in node.meta:
            calls.setdefault(node.meta["inside"], []).append(node)
        given |= dict.fromkeys(node.meta.get("given", ()), node)
    for seen, inside in calls.items():
        args, kept = [], {}
        for index, leaf in enumerate(seen.leaves):
            known = given.get((seen, index), leaf)
            if not isinstance(known, (fx.Node, *_PLAIN)):
                kept[index], known = leaf, None
            args.append(known)
        with graph.inserting_before(inside[0]):
            marker = graph.call_function(FunctionCall(seen.function, seen.structure, kept), tuple(args))
        marker.meta.update({key: inside[0].meta[key] for key in ("nn_module_stack", "grad") if key in inside[0].meta})
        for node in inside:
            node.meta["function"] = (marker.name, node.meta.get("yields"))


def drop_what_cannot_run(graph: fx.Graph, constants: Collection[str]) -> tuple[str, ...]:
    """Take the marking nodes of functions away that read or leave more than they are given; return their names.

    Such a function (a closure over layers) would not see cut tensors. `constants` are names of nodes that never change.
    """
    lost = []
    for marker in [node for node in graph.nodes if isinstance(node.target, FunctionCall)]:
        inside = [node for node in graph.nodes if node.meta.get("function", ("",))[0] == marker.name]
        known = {*inside, *marker.all_input_nodes}
        reads = (value for node in inside for value in node.all_input_nodes if value not in known)
        leaves = (node for node in inside if node.meta["function"][1] is None and not known.issuperset(node.users))
        kept = marker.target.kept.values()
        tensors = any(isinstance(value, torch._subclasses.FakeTensor) for value in kept)
        if tensors or any(leaves) or any(value.op != "get_attr" and value.name not in constants for value in reads):
            lost.append(repr(marker.target))
            for node in inside:
                del node.meta["function"]
            graph.erase_node(marker)
    return tuple(dict.fromkeys(lost))
