"""Holds a cut network against its plan, operator by operator: the same calls, with the shapes and values that are left.

Outputs alone cannot tell a right cut from a wrong one that the example or a silent branch hides (a gate of zero, equal
tokens). Here every value inside is compared with the one of the masked full network, of which the survivors are left.

Longer than others, as plan, alignment and comparison are steps of one walk through two graphs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from autoprune.errors import TraceError
from autoprune.space.cutting.slicing import Ranking, tensor_of
from autoprune.space.groups import SearchSpace, Widths, axis_size
from autoprune.space.tracing.blocks import without
from autoprune.space.tracing.program import Example, Program, plain_attention, record, run_model
from autoprune.space.tracing.resize import Sized, first_index, named_arguments, operator_name
from autoprune.space.tracing.rules import rule_of
from autoprune.space.verification.masked import run_masked
from autoprune.space.verification.watch import Made, Origin, Value, value_of, watched
from autoprune.texts import first_line

Calls: TypeAlias = tuple[list[Made], frozenset[int]]

_COPIES = frozenset(
    ["alias", "clone", "contiguous", "detach", "detach_", "lift_fresh", "lift_fresh_copy", "to", "_to_copy"]
)
"""Operators that say nothing: tracers leave some of them out."""

_FILLS = frozenset(["zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty"])
"""Operators that read no values: what they make may be larger than what is read of it (initial states)."""

_SAME = dict.fromkeys(["view", "_unsafe_view"], "reshape")

_IMPLIED = frozenset(
    ["size", "shape", "sizes", "end", "length", "split_size", "split_sizes", "output_size", "hx", "implicit"]
)
"""Arguments that follow from the shapes of what goes in and comes out."""


@final
class Blueprint:
    """What cut networks of one model must compute inside.

    Args:
        model: the full network; only read.
        program: its graph.
        example: the inputs to compare with.
        tolerance: largest accepted difference of a value.
    """

    def __init__(self, model: nn.Module, program: Program, example: Example, tolerance: float) -> None:
        self._model, self._program, self._example, self._tolerance = model, program, example, tolerance
        self._traces = False  # where a model runs other operators under the tracer than without, as transformers do

    def problem(self, cut: nn.Module, space: SearchSpace, widths: Widths, ranking: Ranking) -> str | None:
        """What is wrong inside a network cut in the model's own class, None where nothing is."""
        program = without(self._program, space.left_out(widths))
        found = None if self._traces else self._watched(program, cut)
        if found is None:
            self._traces = True
            try:
                found = _Aligned.of(program, self._trace(cut))
            except TraceError as error:
                return f"the cut network cannot be traced: {first_line(error)}"
        if found is None:  # a graph that follows values is that of one example, and its cuts may go another way
            return None if program.decides else "the cut network runs other operators than the full one"
        plan = _Plan(found, space, widths, self._tolerance)
        run_masked(self._model, self._program, space, self._example, widths, ranking, watch=plan.hold)
        return plan.problem

    def _watched(self, program: Program, cut: nn.Module) -> _Aligned | None:
        try:
            with torch.no_grad(), plain_attention():
                return _Aligned.of(program, watched(lambda: run_model(cut, self._example)))
        except Exception:  # noqa: BLE001 - what runs may still not run while it is watched; a tracer follows more
            return None

    def _trace(self, cut: nn.Module) -> Calls:
        twin = record(cut, self._example)

        def place(node: fx.Node, given: Any) -> Any:
            return tensor_of(cut, twin.tensors[node.name][0]) if node.name in twin.tensors else given

        with torch.no_grad():
            return watched(lambda: twin.run(self._example, place, _called))


def _called(node: fx.Node, args: Any, kwargs: Any) -> Any:
    return node.target(*args, **kwargs)  # type: ignore[operator]


@final
class _Aligned:
    """Nodes of a graph and the calls of a cut network that belong to them."""

    def __init__(self, calls: Mapping[fx.Node, Made]) -> None:
        self.calls = calls

    @classmethod
    def of(cls, program: Program, calls: Calls) -> _Aligned | None:
        """Pair them in order; None where the operators, or where their tensors come from, are not the same."""
        made, live = calls[0], _live(*calls)
        nodes = [node for node in program.nodes if _is_operator(node)]
        if len(nodes) != len(live):
            return None
        number = {node: index for index, node in enumerate(nodes)}
        place = {call: index for index, call in enumerate(live)}
        for node, call in zip(nodes, live, strict=True):
            if _alike(operator_name(node)) != _alike(_name(made[call])):
                return None
            sources = [number.get(_source(n), -1) for n in _tensors_of(node)]
            if sources != [place.get(_origin(o.call, made), -1) for o in _origins(made[call])]:
                return None
        return cls({node: made[call] for node, call in zip(nodes, live, strict=True)})


@final
class _Plan:
    """Shapes, sizes and values that a cut network must have at certain widths."""

    def __init__(self, found: _Aligned, space: SearchSpace, widths: Widths, tolerance: float) -> None:
        self._found, self._tolerance = found.calls, tolerance
        self._by_name = {node.name: made for node, made in found.calls.items()}
        self._sizes = {
            s.name: {dim: axis_size(axis, space.groups)(widths) for dim, axis in s.axes} for s in space.steps
        }
        self._fed: set[str] = set()
        self._largest: dict[str, float] = {}
        self.problem: str | None = None

    def hold(self, node: fx.Node, survivors: Sequence[Tensor | None]) -> None:
        """Compare what a node of the masked full network leaves with what the cut one made there."""
        if self.problem or not self._follows(node):
            return
        made = self._by_name.get(node.name)
        if made is None:
            return
        inputs = max((self._largest.get(n.name, 0.0) for n in node.all_input_nodes), default=0.0)
        problem = self._arguments(node, made)
        for expected, found in zip(survivors, made.outputs, strict=False):
            if problem is None and expected is not None and found is not None:
                problem = self._value(node, value_of(expected), found, inputs)
        if problem:
            module = next(reversed(list((node.meta.get("nn_module_stack") or {}).values())), ("",))[0]
            self.problem = f"inside the cut network, {operator_name(node)} in {module or 'the model'} {problem}"

    def _follows(self, node: fx.Node) -> bool:
        """False for what is made from constants alone."""
        follows = operator_name(node) not in _FILLS and any(
            n.op == "placeholder" or n.name in self._fed for n in node.all_input_nodes
        )
        if follows:
            self._fed.add(node.name)
        return follows

    def _value(self, node: fx.Node, expected: Value, found: Value, inputs: float) -> str | None:
        if expected.shape != found.shape:
            return f"makes {found.shape} where {expected.shape} are left"
        self._largest[node.name] = max(self._largest.get(node.name, 0.0), expected.largest)
        if not expected.elements.is_floating_point() or not expected.elements.numel():
            return None
        one, other = expected.elements.double(), found.elements.double()
        alike = (one == other) | (one.isnan() & other.isnan())
        scale = max(expected.largest, 1e-3 * inputs, 1e-30)  # what cancels is as exact as what it was made from
        error = float(torch.where(alike, 0.0, (one - other).abs()).max()) / scale
        return None if error <= self._tolerance else f"differs by {error:.1e}"

    def _arguments(self, node: fx.Node, made: Made) -> str | None:
        """The first integer that is not what the graph form of this cut would have there."""
        tensors = {name: value for name, value in made.arguments.items() if _has_origin(value)}
        given = tree_map_only(Origin, lambda o: torch.empty(o.shape, device="meta"), tensors)
        planned = {**named_arguments(node, node.args, node.kwargs), **given}
        resize = rule_of(node.target).resize
        if resize and "hx" not in planned:
            planned = resize(Sized(node, planned, partial(self._shape, node), partial(self._before, node)))
        expected, found = (_integers(a, made) for a in (planned, made.arguments))
        for name in expected.keys() & found.keys():
            if expected[name] != found[name]:
                return f"has {name} = {found[name]} where {expected[name]} would be right"
        return None

    def _shape(self, node: fx.Node, index: int | None) -> tuple[int, ...]:
        shape = list(node.meta["shapes"][index or 0])
        for dim, size in self._sizes.get(node.name if index is None else f"{node.name}.{index}", {}).items():
            shape[dim] = size
        return tuple(shape)

    def _before(self, node: fx.Node, dim: int, traced: int) -> int:
        return self._sizes.get(f"{node.name}.before", {}).get(dim, traced)


def _integers(arguments: Mapping[str, Any], made: Made) -> dict[str, Any]:
    """The arguments that are whole numbers, indices counted from the front."""
    numbers = {n: v for n, v in arguments.items() if n not in _IMPLIED and _whole(v)}
    source = made.arguments.get("self")
    dim = arguments.get("dim", 0)
    if isinstance(source, Origin) and isinstance(dim, int) and source.shape:
        for name in numbers.keys() & {"start", "index"}:
            numbers[name] = first_index(numbers[name], source.shape[dim % len(source.shape)])
    return {name: list(v) if isinstance(v, list | tuple) else v for name, v in numbers.items()}


def _whole(value: Any) -> bool:
    values = value if isinstance(value, list | tuple) else [value]
    return bool(values) and all(isinstance(v, int) and not isinstance(v, bool) for v in values)


def _live(made: Sequence[Made], outputs: frozenset[int]) -> list[int]:
    """Numbers of the calls that something reads, as the graph leaves out the others."""
    read = set(outputs)
    for number in range(len(made) - 1, -1, -1):
        if number in read or made[number].target._schema.is_mutable:
            read.add(number)
            read.update(o.call for o in _origins(made[number]))
    return [number for number in sorted(read) if number >= 0 and _counts(_name(made[number]))]


def _is_operator(node: fx.Node) -> bool:
    """True for what a network is seen to call; marks of autograd functions and switches of gradients are not."""
    return node.op == "call_function" and hasattr(node.target, "_schema") and _counts(operator_name(node))


def _counts(name: str) -> bool:
    return name != "getitem" and name not in _COPIES and not name.startswith("_assert")


def _name(made: Made) -> str:
    return str(made.target.__name__).split(".")[0]


def _alike(name: str) -> str:
    return _SAME.get(name, name)


def _origins(made: Made) -> list[Origin]:
    return [leaf for leaf in tree_leaves(list(made.arguments.values())) if isinstance(leaf, Origin)]


def _has_origin(value: Any) -> bool:
    return any(isinstance(leaf, Origin) for leaf in tree_leaves(value))


def _tensors_of(node: fx.Node) -> list[fx.Node]:
    arguments = named_arguments(node, node.args, node.kwargs)
    return [leaf for leaf in tree_leaves(list(arguments.values())) if isinstance(leaf, fx.Node)]


def _written_through(name: str) -> bool:
    return name in _COPIES or name == "getitem" or (name.endswith("_") and not name.startswith("_"))


def _source(node: fx.Node) -> fx.Node:
    """The node that made this value, copies and what was written into it left out."""
    while node.op == "call_function" and _written_through(operator_name(node)):
        node = node.all_input_nodes[0]
    return node


def _origin(call: int, made: Sequence[Made]) -> int:
    while call >= 0 and _written_through(_name(made[call])):
        call = next((o.call for o in _origins(made[call])), -1)
    return call
