"""What a model does in training beside what its graph, which was traced in evaluation, does.

The model is traced once more, in training mode. Mostly the same operators are called with other arguments (dropout,
norms with running statistics): a network then takes the arguments of the mode that the calling module is in. Where
forward does more (stochastic depth, power iterations, auxiliary outputs), there are two graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from autoprune.errors import TraceError
from autoprune.space.cutting.batch import batch_behaviour
from autoprune.space.sizes import AffineSize
from autoprune.space.tracing.program import Example, Program, record
from autoprune.space.tracing.resize import name_of, operator_name

Modes: TypeAlias = Mapping[str, Mapping[str, tuple[Any, Any]]]
"""Node name -> argument -> its values in evaluation and in training."""

Sizes: TypeAlias = Mapping[str, tuple[tuple[int, AffineSize], ...]]
"""Value name -> (dimension, size) of what follows the widths."""


@final
@dataclass(frozen=True, eq=False)
class TrainingForm:
    """How training differs from evaluation.

    Attributes:
        modes: arguments that differ.
        program: the graph of training, where forward does something else; its nodes are named like those of evaluation.
        growing: names in it -> dimensions that grow with the batch.
        counts: names in it -> positions of arguments that grow with the batch.
        problem: why this is not all that differs; empty where it is.
    """

    modes: Modes = field(default_factory=dict)
    program: Program | None = None
    growing: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    problem: str = ""


def is_plain(module: nn.Module) -> bool:
    """True for batch norms of torch itself, which a graph runs by the flags of the module."""
    return isinstance(module, _BatchNorm) and type(module).forward is _BatchNorm.forward


def in_training(model: nn.Module) -> None:
    """Training mode, but for torch's batch norms: their moving averages are numbers that no tracer follows."""
    model.train()
    for module in model.modules():
        if is_plain(module):
            module.eval()


def without_batch_norms(model: nn.Module) -> None:
    """Training mode, but for all batch norms, which refuse single values."""
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def training_form(model: nn.Module, program: Program, example: Example) -> TrainingForm:
    """Trace the model in training mode and compare with its graph.

    Args:
        model: the traced model; only read.
        program: its graph in evaluation.
        example: the inputs it was traced with.
    """
    for prepare in (in_training, without_batch_norms):
        try:
            other = record(model, example, prepare=prepare)
        except TraceError:
            continue
        if other.decides or other.draws:
            return TrainingForm(_usual(program), problem="forward takes decisions by chance in training")
        twins = _twins(program, other)
        if _same_calls(program, other, twins):
            return TrainingForm(modes=dict(_modes(twins)))
        renamed = _renamed(program, other, twins)
        added = [node for node in other.graph.nodes if node not in twins and node.op == "call_function"]
        growing: Mapping[str, tuple[int, ...]] = {}
        counts: Mapping[str, tuple[int, ...]] = {}
        if any(isinstance(value, list | tuple) for node in added for value in (*node.args, *node.kwargs.values())):
            batch, growing, counts = batch_behaviour(model, renamed, example, prepare=prepare)
            if batch is None:
                return TrainingForm(dict(_modes(twins)), problem="forward holds on to the batch size in training")
        return TrainingForm(dict(_modes(twins)), renamed, growing, counts)
    return TrainingForm(_usual(program), problem="forward cannot be traced in training mode")


_SWITCHES = {
    **dict.fromkeys(["dropout", "dropout_", "feature_dropout", "feature_dropout_", "alpha_dropout"], "train"),
    **dict.fromkeys(["alpha_dropout_", "feature_alpha_dropout", "feature_alpha_dropout_"], "train"),
    **dict.fromkeys(["lstm", "gru", "rnn_tanh", "rnn_relu"], "train"),
    **dict.fromkeys(["rrelu", "rrelu_"], "training"),
}
"""Operator -> its argument that mostly follows the training flag."""


def _usual(program: Program) -> Modes:
    """What random operators mostly do, where a model cannot be asked."""
    names = ((node.name, _SWITCHES.get(operator_name(node))) for node in program.nodes if node.op == "call_function")
    return {name: {argument: (False, True)} for name, argument in names if argument}


def sizes_of_added(training: Program, program: Program, sizes: Sizes) -> Sizes:
    """Sizes of random masks and the like that training makes: those of the value that they are combined with.

    A guess by the traced sizes; the networks that follow from it are tried.

    Args:
        training: the graph of training, with the names of `training_form`.
        program: that of evaluation.
        sizes: value name -> (dimension, size) of what follows the widths in it.
    """
    known = {node.name for node in program.nodes}
    found: dict[str, tuple[tuple[int, AffineSize], ...]] = {}
    for node in training.nodes:
        if node.op == "call_function" and node.name not in known:
            beside = _combined_with(node, sizes)
            if beside is not None:
                shape, traced = node.meta["shapes"][0], beside.meta["shapes"][0]
                same = {dim for dim, (n, m) in enumerate(zip(shape, traced, strict=True)) if n == m > 1}
                found[node.name] = tuple((dim, size) for dim, size in sizes[name_of(beside)] if dim in same)
    return found


def _combined_with(node: fx.Node, sizes: Sizes) -> fx.Node | None:
    """The first value of known sizes that meets this one, or what is made of it in its shape, in one call."""
    shape, reached = node.meta["shapes"][0], [node]
    for value in reached:
        for user in value.users:
            for other in user.all_input_nodes:
                if other is not value and name_of(other) in sizes and len(other.meta["shapes"][0]) == len(shape):
                    return other
            if user.meta["shapes"][0] == shape and user not in reached:
                reached.append(user)
    return None


def _twins(program: Program, other: Program) -> dict[fx.Node, fx.Node]:
    """Nodes of the other graph -> those of this one that do the same: operator, calling module, shape; in order."""
    twins = dict(_placeholders(program, other))
    ours, theirs = ([n for n in p.nodes if n.op == "call_function"] for p in (program, other))
    one, two = [_key(node) for node in ours], [_key(node) for node in theirs]
    first = 0
    while first < min(len(one), len(two)) and one[first] == two[first]:
        twins[theirs[first]] = ours[first]
        first += 1
    matcher = SequenceMatcher(None, one[first:], two[first:], autojunk=False)
    for block in matcher.get_matching_blocks():
        for offset in range(first, first + block.size):
            twins[theirs[block.b + offset]] = ours[block.a + offset]
    twins[other.nodes[-1]] = program.nodes[-1]
    return twins


def _placeholders(program: Program, other: Program) -> Iterator[tuple[fx.Node, fx.Node]]:
    ours = {node.name: node for node in program.nodes if node.op == "placeholder"}
    theirs = {node.name: node for node in other.nodes if node.op == "placeholder"}
    by_tensor = {name: ours[placeholder] for placeholder, (name, _) in program.tensors.items()}
    for placeholder, (name, _) in other.tensors.items():
        if name in by_tensor:
            yield theirs[placeholder], by_tensor[name]
    for one, two in zip(program.inputs, other.inputs, strict=True):
        yield theirs[two], ours[one]
    left = dict(program.constants)
    for two, value in other.constants.items():
        same = next((n for n, v in left.items() if v.dtype == value.dtype and torch.equal(v, value)), None)
        if same is not None:
            del left[same]
            yield theirs[two], ours[same]


def _key(node: fx.Node) -> tuple[Any, ...]:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    taken = node.args[1] if node.target.__name__ == "getitem" else None  # type: ignore[union-attr]
    return node.target, stack[-1][0] if stack else "", tuple(node.meta["shapes"]), taken


def _same_calls(program: Program, other: Program, twins: Mapping[fx.Node, fx.Node]) -> bool:
    """True where the graphs differ in nothing but constant arguments of operators."""
    if len(program.nodes) != len(other.nodes) or any(node not in twins for node in other.nodes):
        return False
    if program.out_spec != other.out_spec:
        return False
    for node in other.nodes:
        theirs, ours = (_leaves(n) for n in (node, twins[node]))
        if hasattr(node.target, "_schema"):
            theirs, ours = ([v for v in leaves if isinstance(v, fx.Node)] for leaves in (theirs, ours))
        if [twins[v] if isinstance(v, fx.Node) else v for v in theirs] != ours:
            return False
        if node.meta.get("grad") != twins[node].meta.get("grad"):
            return False
    return True


def _leaves(node: fx.Node) -> list[Any]:
    leaves: list[Any] = pytree.tree_leaves((tuple(node.args), dict(node.kwargs)))
    return leaves


def _modes(twins: Mapping[fx.Node, fx.Node]) -> Iterator[tuple[str, Mapping[str, tuple[Any, Any]]]]:
    for theirs, ours in twins.items():
        if hasattr(theirs.target, "_schema"):
            one, two = _constants(ours), _constants(theirs)
            differ = {name: (one[name], two[name]) for name in one if name in two and one[name] != two[name]}
            if differ:
                yield ours.name, differ


def _constants(node: fx.Node) -> dict[str, Any]:
    """Arguments, defaults included, that hold no value of the graph."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = dict(zip((a.name for a in schema), node.args, strict=False)) | dict(node.kwargs)
    named = {a.name: given.get(a.name, a.default_value) for a in schema}
    return {n: v for n, v in named.items() if not any(isinstance(x, fx.Node | Tensor) for x in pytree.tree_leaves(v))}


def _renamed(program: Program, other: Program, twins: Mapping[fx.Node, fx.Node]) -> Program:
    """The other graph with the names of this one where nodes do the same."""
    taken = {node.name for node in program.nodes}
    names: dict[str, str] = {}
    for node in other.nodes:
        name = twins[node].name if node in twins else f"training_{node.name}"
        while node not in twins and name in taken:
            name += "_"
        taken.add(name)
        names[node.name] = name
    for node in other.nodes:
        node.name = names[node.name]
        if "function" in node.meta:
            marker, position = node.meta["function"]
            node.meta["function"] = (names[marker], position)
    return replace(
        other,
        tensors={names[key]: value for key, value in other.tensors.items()},
        constants={names[key]: value for key, value in other.constants.items()},
        inputs=tuple(names[key] for key in other.inputs),
    )
