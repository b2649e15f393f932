"""The graph form of a cut network: the traced graph, its baked sizes following the widths, over the user's own tensors.

Needs no knowledge of any model, and is used where the model's own `forward` has sizes baked in that no attribute
explains. It trains: batch norm and dropout run as the user's modules do, training flag and all; the state dict has
the original names.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, final

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from autoprune.errors import SpaceError, TraceError
from autoprune.space.blocks import without
from autoprune.space.groups import Block, SearchSpace, Widths, axis_size
from autoprune.space.program import Example, Program, call_arguments, record
from autoprune.space.resize import CARRIES_SIZES, Sized, call_resized, named_arguments, operator_name
from autoprune.space.sizes import AffineSize
from autoprune.space.slicing import tensor_of


@final
@dataclass(frozen=True, eq=False)
class Plan:
    """What all networks of one space share; never copied.

    Attributes:
        program: the traced graph.
        example: the inputs it was traced with.
        batch: batch size of the example; None where the graph cannot take another one.
        growing: value name -> dimensions that grow with the batch.
        counts: node name -> positions among its flat arguments of integers that grow with the batch.
        sizes: value name -> (dimension, size) of what follows the widths.
        signature: of the model's forward.
        switches: index of a width -> the block that is left out where it is 0.
    """

    program: Program
    example: Example
    batch: int | None
    growing: Mapping[str, tuple[int, ...]]
    counts: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, tuple[tuple[int, AffineSize], ...]]
    signature: inspect.Signature
    switches: Mapping[int, Block]

    def at(self, widths: Widths) -> Plan:
        """The plan without the blocks that these widths leave out."""
        off = [block for index, block in self.switches.items() if not widths[index]]
        return replace(self, program=without(self.program, off)) if off else self

    @cached_property
    def placed(self) -> frozenset[str]:
        """Names of the nodes that say on which device they make something."""
        calls = (node for node in self.program.nodes if node.op == "call_function")
        return frozenset(
            node.name
            for node in calls
            if any(isinstance(leaf, torch.device) for leaf in pytree.tree_leaves((tuple(node.args), dict(node.kwargs))))
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        return self


def graph_network(
    model: nn.Module, program: Program, space: SearchSpace, example: Example, *, batch: bool = True
) -> GraphNetwork:
    """The full network in graph form, with copies of the model's tensors.

    Args:
        model: the traced model; only read.
        program: its graph.
        space: its space, with the layouts of all values.
        example: the inputs it was traced with.
        batch: find out how the graph takes other batch sizes, which traces the model once more.
    """
    size, growing, counts = _batch_behaviour(model, program, example) if batch else (None, {}, {})
    sizes = {step.name: tuple((dim, axis_size(axis, space.groups)) for dim, axis in step.axes) for step in space.steps}
    plan = Plan(program, example, size, growing, counts, sizes, inspect.signature(model.forward), space.switches)
    return GraphNetwork(copy.deepcopy(model), plan, space.full)


class GraphNetwork(nn.Module):
    """A network that runs as the graph it was traced to; see `graph_network`."""

    def __init__(self, model: nn.Module, plan: Plan, widths: Widths) -> None:
        super().__init__()
        self.training = model.training
        self._parameters, self._buffers, self._modules = model._parameters, model._buffers, model._modules
        self._non_persistent_buffers_set = model._non_persistent_buffers_set
        self.graph_plan = plan
        self._traced_class = type(model).__name__
        self.follow_widths(widths)

    def follow_widths(self, widths: Widths) -> None:
        """Let the graph follow these widths, from the full ones; the tensors are cut by whoever calls this."""
        self.graph_plan = self.graph_plan.at(widths)
        self._shapes = {
            name: {dim: size(widths) for dim, size in sizes} for name, sizes in self.graph_plan.sizes.items()
        }

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph.

        Raises:
            SpaceError: inputs of another structure or shape than those that were traced (the batch may differ).
        """
        args, kwargs = self._as_traced(args, kwargs)
        given, structure = pytree.tree_flatten((args, kwargs))
        traced, expected = pytree.tree_flatten(call_arguments(self.graph_plan.example))
        if structure != expected:
            raise SpaceError(
                f"this network is the traced graph of {self._traced_class} and must be called as it was traced, "
                f"{len(traced)} inputs in {expected}; got {structure}"
            )
        return _Run(self, self._batch_factor(traced, given)).run(args, kwargs)

    def _as_traced(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same inputs, by position or by name as they were traced; as they are where that cannot be told."""
        traced_args, traced_kwargs = call_arguments(self.graph_plan.example)
        parameters = self.graph_plan.signature.parameters
        if any(p.kind in (p.VAR_POSITIONAL, p.POSITIONAL_ONLY) for p in parameters.values()):
            return args, kwargs
        names = list(parameters)[: len(traced_args)]
        wanted = (*names, *traced_kwargs)
        try:
            bound = self.graph_plan.signature.bind(*args, **kwargs).arguments
        except TypeError:
            return args, kwargs
        given = {name: v for name, v in bound.items() if name in wanted or v is not parameters[name].default}
        if given.keys() != set(wanted):
            return args, kwargs
        return tuple(given[name] for name in names), {name: given[name] for name in traced_kwargs}

    def extra_repr(self) -> str:
        """Name the class that was traced."""
        return f"graph of {self._traced_class}"

    def _batch_factor(self, traced: list[Any], given: list[Any]) -> tuple[int, int]:
        """This batch size and the traced one."""
        plan = self.graph_plan
        n = next((v.shape[0] for v in given if isinstance(v, Tensor) and v.ndim), 1) if plan.batch else 1
        for name, old, new in zip(plan.program.inputs, traced, given, strict=True):
            if isinstance(old, Tensor) != isinstance(new, Tensor) or (not isinstance(old, Tensor) and old != new):
                raise SpaceError(
                    f"this network is the traced graph of {self._traced_class}; {name} was {old!r} then, got {new!r}"
                )
            if isinstance(old, Tensor):
                expected = (n, *old.shape[1:]) if 0 in plan.growing.get(name, ()) else tuple(old.shape)
                if tuple(new.shape) != expected:
                    batch = "any batch size" if plan.batch else "no other batch size"
                    raise SpaceError(
                        f"this network is the traced graph of {self._traced_class} and takes {tuple(old.shape)} for "
                        f"{name} ({batch}), got {tuple(new.shape)}; trace the model with inputs of that shape"
                    )
        return n, plan.batch or 1


@final
class _Run:
    """One forward pass."""

    def __init__(self, network: GraphNetwork, factor: tuple[int, int]) -> None:
        self._network = network
        self.graph_plan = network.graph_plan
        self._shapes = network._shapes
        self._factor = factor
        self._device = next((tensor.device for tensor in (*network.parameters(), *network.buffers())), None)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.graph_plan.program.run(kwargs or args, self._place, self._call)

    def _place(self, node: fx.Node, given: Any) -> Any:
        if node.name in self.graph_plan.program.tensors:
            return tensor_of(self._network, self.graph_plan.program.tensors[node.name][0])
        if node.name in self.graph_plan.program.constants and self._device is not None:
            return given.to(self._device)
        return given

    def _call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        name = operator_name(node)
        if name == "getitem":
            return args[0][args[1]]
        if self.graph_plan.counts:
            args, kwargs = self._scaled(node, args, kwargs)
        if node.name in self.graph_plan.placed and self._device is not None:
            args, kwargs = pytree.tree_map_only(torch.device, lambda _: self._device, (args, kwargs))
        if name in CARRIES_SIZES:
            shape, before = partial(self._shape, node), partial(self._before, node)
            return call_resized(Sized(node, named_arguments(node, args, kwargs), shape, before))
        if name == "batch_norm":
            return self._batch_norm(node, args, kwargs)
        if name in ("dropout", "dropout_", "feature_dropout", "alpha_dropout"):
            return self._dropout(node, args, kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _batch_norm(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        """As the module that owns the running statistics would: its training flag, momentum and counter."""
        owner = self._owner_of(named_arguments(node, node.args, node.kwargs).get("running_mean"))
        if isinstance(owner, _BatchNorm):
            return _BatchNorm.forward(owner, args[0])  # a subclass may add an activation, which has a node of its own
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _dropout(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        arguments = named_arguments(node, args, kwargs)
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        module = self._network.get_submodule(stack[-1][0]) if stack else self._network
        arguments["train"] = arguments["train"] or module.training
        return node.target(**arguments)  # type: ignore[operator]

    def _owner_of(self, tensor: Any) -> nn.Module | None:
        known = self.graph_plan.program.tensors.get(getattr(tensor, "name", ""))
        return self._network.get_submodule(known[0].rpartition(".")[0]) if known else None

    def _shape(self, node: fx.Node, index: int | None) -> tuple[int, ...]:
        shape = list(node.meta["shapes"][index or 0])
        name = node.name if index is None else f"{node.name}.{index}"
        for dim, size in self._shapes.get(name, {}).items():
            shape[dim] = size
        if self._factor[0] != self._factor[1]:
            for dim in self.graph_plan.growing.get(name, ()):
                shape[dim] = shape[dim] * self._factor[0] // self._factor[1]
        return tuple(shape)

    def _before(self, node: fx.Node, dim: int, traced: int) -> int:
        return self._shapes.get(f"{node.name}.before", {}).get(dim, traced)

    def _scaled(self, node: fx.Node, args: Any, kwargs: Any) -> tuple[Any, Any]:
        positions = self.graph_plan.counts.get(node.name)
        if not positions or self._factor[0] == self._factor[1]:
            return args, kwargs
        leaves, structure = pytree.tree_flatten((args, kwargs))
        for i in positions:
            leaves[i] = leaves[i] * self._factor[0] // self._factor[1]
        scaled: tuple[Any, Any] = pytree.tree_unflatten(leaves, structure)
        return scaled


def _batch_behaviour(
    model: nn.Module, program: Program, example: Example
) -> tuple[int | None, dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Find what grows with the batch by tracing once more with two batches; (None, {}, {}) where that fails."""
    nothing: tuple[None, dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]] = (None, {}, {})
    batch = next((v.shape[0] for v in pytree.tree_leaves(example) if isinstance(v, Tensor) and v.ndim), None)
    if not batch:
        return nothing

    def twice(value: Any) -> Any:
        return torch.cat([value, value]) if isinstance(value, Tensor) and value.ndim and len(value) == batch else value

    try:
        other = record(model, pytree.tree_map(twice, example))
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
