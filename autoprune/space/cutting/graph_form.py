"""The graph form of a cut network: the traced graph, its baked sizes following the widths, over the user's own tensors.

Needs no knowledge of any model, and is used where the model's own `forward` has sizes baked in that no attribute
explains. It trains: batch norm and dropout run as the user's modules do, training flag and all; the state dict has
the original names.

Longer than others, as the network and what runs it share the state that pickling and training flags must keep.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, final

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.jit._trace import is_tracing
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from autoprune.errors import SpaceError
from autoprune.randomness import seeded
from autoprune.space.copying import copy_network
from autoprune.space.cutting.batch import batch_behaviour
from autoprune.space.cutting.graph_plan import GraphPlan
from autoprune.space.cutting.slicing import random_ranking, slice_model, tensor_of
from autoprune.space.cutting.training_form import (
    TrainingForm,
    is_plain,
    sizes_of_added,
    training_form,
    without_batch_norms,
)
from autoprune.space.groups import SearchSpace, Widths, axis_size, with_all_blocks
from autoprune.space.tracing.functions import FunctionCall
from autoprune.space.tracing.program import Example, Prepare, Program, call_arguments, run_model, tensors
from autoprune.space.tracing.resize import Sized, named_arguments, operator_name
from autoprune.space.tracing.rules import rule_of

_Root: TypeAlias = tuple[type[nn.Module], dict[str, Any]]


def graph_network(
    model: nn.Module, program: Program, space: SearchSpace, example: Example, *, trained: bool = True
) -> GraphNetwork:
    """The full network in graph form, with copies of the model's tensors.

    Args:
        model: the traced model; only read.
        program: its graph.
        space: its space, with the layouts of all values.
        example: the inputs it was traced with.
        trained: find out how the graph takes other batch sizes and what training changes, which traces the model twice
            more.
    """
    sizes = {step.name: tuple((dim, axis_size(axis, space.groups)) for dim, axis in step.axes) for step in space.steps}
    size, growing, counts = batch_behaviour(model, program, example) if trained else (None, {}, {})
    training = training_form(model, program, example) if trained else TrainingForm()
    if training.program is not None:
        growing, counts = {**training.growing, **growing}, {**training.counts, **counts}
        sizes |= sizes_of_added(training.program, program, sizes)
    signature = inspect.signature(model.forward)
    plan = GraphPlan(program, example, size, growing, counts, sizes, signature, training, space.presence)
    network = GraphNetwork(copy_network(model), plan, space.full)
    if training.program is None or _trains_when_cut(network, space):
        return network
    problem = "forward does something in training that its graph does not follow to other widths"
    training = replace(training, program=None, problem=problem)
    return GraphNetwork(network, replace(plan, training=training), space.full, kind=type(model).__name__)


def step_of_cut(network: GraphNetwork, space: SearchSpace, prepare: Prepare) -> None:
    """Run the network of the smallest widths forward and backward; raises whatever that raises.

    Args:
        network: the full network in graph form; only read.
        space: its space.
        prepare: brings the cut network into the mode that is tried.
    """
    widths = with_all_blocks(space, space.smallest)
    cut = slice_model(network, space, widths, random_ranking(space, np.random.default_rng(0)))
    prepare(cut)
    with seeded(0), torch.enable_grad():
        outputs = [o for o in tensors(run_model(cut, network.graph_plan.example)) if o.requires_grad]
        torch.autograd.backward(outputs, [torch.ones_like(o) for o in outputs])


def _trains_when_cut(network: GraphNetwork, space: SearchSpace) -> bool:
    try:
        step_of_cut(network, space, without_batch_norms)
    except Exception:  # noqa: BLE001 - sizes that do not fit, or code of the user's own, may fail in any way
        return False
    return True


class GraphNetwork(nn.Module):
    """A network that runs as the graph it was traced to; see `graph_network`."""

    _see: Callable[[fx.Node, Any], None] | None = None

    def __init__(self, model: nn.Module, plan: GraphPlan, widths: Widths, *, kind: str | None = None) -> None:
        super().__init__()
        self.training = model.training
        self._parameters, self._buffers, self._modules = model._parameters, model._buffers, model._modules
        self._non_persistent_buffers_set = model._non_persistent_buffers_set
        self.graph_plan = plan
        self._traced_class = kind or type(model).__name__
        self._root: _Root | None = model._root if isinstance(model, GraphNetwork) else _root_of(model)
        self.follow_widths(widths)

    def follow_widths(self, widths: Widths) -> None:
        """Let the graph follow these widths, from the full ones; the tensors are cut by whoever calls this."""
        self.graph_plan = self.graph_plan.at(widths)
        self._shapes = {
            name: {dim: size(widths) for dim, size in sizes} for name, sizes in self.graph_plan.sizes.items()
        }

    @contextmanager
    def watched_by(self, see: Callable[[fx.Node, Any], None]) -> Iterator[None]:
        """Inside, `see` is told each call and its value, as hooks of submodules, which do not fire, would be."""
        self._see = see
        try:
            yield
        finally:
            del self._see

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

    @property
    def traced_class(self) -> str:
        """Name of the class that was traced."""
        return self._traced_class

    @property
    def traced_root(self) -> nn.Module:
        """The module that was traced, over the tensors of this network, to begin anew by methods of its own.

        This network itself where it has none of these. Its attributes are those of full widths: it is not to be called.
        """
        if self._root is None:
            return self
        kind, attributes = self._root
        root: nn.Module = kind.__new__(kind)
        nn.Module.__init__(root)
        vars(root).update(attributes, training=self.training)
        root._parameters, root._buffers, root._modules = self._parameters, self._buffers, self._modules
        root._non_persistent_buffers_set = self._non_persistent_buffers_set
        return root

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
                    one = not plan.batch and tuple(old.shape) == (1, *new.shape[1:])
                    then = "a batch of 2: a graph of a batch of 1 may hold on to it" if one else "inputs of that shape"
                    raise SpaceError(
                        f"this network is the traced graph of {self._traced_class} and takes {tuple(old.shape)} for "
                        f"{name} ({batch}), got {tuple(new.shape)}; trace the model with {then}"
                    )
        return n, plan.batch or 1


def _root_of(model: nn.Module) -> _Root | None:
    """The class of a module that has an initialisation of its own, and its plain attributes; None: it has none."""
    kind, of_torch = type(model), vars(nn.Module())
    if not any(callable(getattr(kind, name, None)) for name in ("reset_parameters", "_init_weights")):
        return None
    plain = {name: value for name, value in vars(model).items() if name not in of_torch}
    return kind, {n: v for n, v in plain.items() if not any(isinstance(o, Tensor) for o in pytree.tree_leaves(v))}


@final
class _Run:
    """One forward pass."""

    def __init__(self, network: GraphNetwork, factor: tuple[int, int]) -> None:
        self._network = network
        self.graph_plan = network.graph_plan
        in_training = self.graph_plan.training.program if network.training else None
        self._program = in_training or self.graph_plan.program
        self._made: dict[str, list[Any]] = {}  # outputs of functions with a backward of their own
        self._flat = is_tracing()  # type: ignore[no-untyped-call]  # which would not look into them
        self._shapes = network._shapes
        self._factor = factor
        # a symbol is not compared: torch.export would take the outcome for a condition on the batch
        self._other_batch = isinstance(factor[0], torch.SymInt) or factor[0] != factor[1]
        self._device = next((tensor.device for tensor in (*network.parameters(), *network.buffers())), None)

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        see = self._network._see
        return self._program.run(kwargs or args, self._place, self._call if see is None else partial(self._told, see))

    def _told(self, see: Callable[[fx.Node, Any], None], node: fx.Node, args: Any, kwargs: Any) -> Any:
        value = self._call(node, args, kwargs)
        see(node, value)
        return value

    def _place(self, node: fx.Node, given: Any) -> Any:
        if node.name in self._program.tensors:
            return tensor_of(self._network, self._program.tensors[node.name][0])
        if node.name in self._program.constants and self._device is not None:
            return given.to(self._device)
        return given

    def _call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        inside = None if self._flat else node.meta.get("function")
        if inside:
            marker, position = inside
            return None if position is None else self._made[marker][position]
        grad = node.meta.get("grad")
        with nullcontext() if grad is None else torch.set_grad_enabled(grad):
            return self._run(node, args, kwargs)

    def _run(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        name = operator_name(node)
        if name == "getitem":
            return args[0][args[1]]
        if self.graph_plan.counts:
            args, kwargs = self._scaled(node, args, kwargs)
        if node.name in self.graph_plan.placed and self._device is not None:
            args, kwargs = pytree.tree_map_only(torch.device, lambda _: self._device, (args, kwargs))
        if isinstance(node.target, FunctionCall):
            self._made[node.name] = [] if self._flat else node.target.apply(args)
            return None
        modes = self.graph_plan.training.modes.get(node.name)
        if modes:
            trains = self._caller(node).training
            chosen = {argument: pair[trains] for argument, pair in modes.items()}
            args, kwargs = (), named_arguments(node, args, kwargs) | chosen
        rule = rule_of(node.target)
        if rule.carries_sizes:
            shape, before = partial(self._shape, node), partial(self._before, node)
            return rule.call(Sized(node, named_arguments(node, args, kwargs), shape, before))
        if name == "batch_norm":
            return self._batch_norm(node, args, kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _caller(self, node: fx.Node) -> nn.Module:
        """The module whose forward makes this call; the whole network where the tracer does not say."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        return self._network.get_submodule(stack[-1][0]) if stack else self._network

    def _batch_norm(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        """As the module of torch that owns the running statistics would: its training flag, momentum and counter."""
        given = named_arguments(node, args, kwargs)
        owner = self._owner_of(named_arguments(node, node.args, node.kwargs).get("running_mean"))
        if isinstance(owner, _BatchNorm) and is_plain(owner):
            known = node.meta.get("nn_module_stack")
            if self._caller(node) is owner if known else given.get("weight") is owner.weight:
                return _BatchNorm.forward(owner, given["input"])
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _owner_of(self, tensor: Any) -> nn.Module | None:
        known = self._program.tensors.get(getattr(tensor, "name", ""))
        return self._network.get_submodule(known[0].rpartition(".")[0]) if known else None

    def _shape(self, node: fx.Node, index: int | None) -> tuple[int, ...]:
        shape = list(node.meta["shapes"][index or 0])
        name = node.name if index is None else f"{node.name}.{index}"
        for dim, size in self._shapes.get(name, {}).items():
            shape[dim] = size
        if self._other_batch:
            for dim in self.graph_plan.growing.get(name, ()):
                shape[dim] = shape[dim] * self._factor[0] // self._factor[1]
        return tuple(shape)

    def _before(self, node: fx.Node, dim: int, traced: int) -> int:
        return self._shapes.get(f"{node.name}.before", {}).get(dim, traced)

    def _scaled(self, node: fx.Node, args: Any, kwargs: Any) -> tuple[Any, Any]:
        positions = self.graph_plan.counts.get(node.name)
        if not positions or not self._other_batch:
            return args, kwargs
        leaves, structure = pytree.tree_flatten((args, kwargs))
        for i in positions:
            leaves[i] = leaves[i] * self._factor[0] // self._factor[1]
        scaled: tuple[Any, Any] = pytree.tree_unflatten(leaves, structure)
        return scaled
