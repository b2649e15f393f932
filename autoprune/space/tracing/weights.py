"""Which parameters are weights: those whose axes are channels, whatever forward makes of them before it multiplies."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves

from autoprune.space.tracing.program import Program
from autoprune.space.tracing.resize import named_arguments, operator_name
from autoprune.space.tracing.rules import rule_of
from autoprune.space.tracing.rules.elementwise import pointwise

_NAMES = ("weight", "weight_orig", "weight_g", "weight_v")
"""As torch's modules and its older norms of weights, which are hooks, name them."""

_READ = ("weight", "params", "w_ih", "w_hh")
"""Arguments that are weights: of most operators, of recurrent layers and of their cells."""


def weights_of(model: nn.Module, program: Program) -> frozenset[str]:
    """Names of the weights of convolutions, linear layers and attention, and of parameters that become such weights."""
    names = []
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, _ConvNd | nn.Linear):
            names += [f"{path}.{name}" for name in _NAMES]
        elif isinstance(module, nn.MultiheadAttention):
            names += [f"{path}.{kind}_proj_weight" for kind in ("in", "q", "k", "v")]
    return frozenset([*(name.lstrip(".") for name in names), *_computed(program)])


def _computed(program: Program) -> Iterator[str]:
    """Parameters and masks from which forward computes the weight of a layer."""
    for node in program.nodes:
        if node.op == "call_function" and rule_of(node.target).reads and hasattr(node.target, "_schema"):
            given = named_arguments(node, node.args, node.kwargs)
            names = (*_READ, "mat2") if operator_name(node) == "_grouped_mm" else _READ
            for weight in tree_leaves([given.get(name) for name in names]):
                if isinstance(weight, fx.Node) and weight.op == "call_function":
                    yield from _sources(program, weight)


def _sources(program: Program, node: fx.Node) -> Iterator[str]:
    seen, waiting = set(), [node]
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        if value.op == "placeholder":
            name, _ = program.tensors.get(value.name, ("", ""))
            traced = value.meta.get("val")
            shape = tuple(traced.shape) if isinstance(traced, Tensor) else ()
            if name and sum(n > 1 for n in shape) > 1 and max(shape[:2]) > 1:  # not one filter for all channels
                yield name
        elif value.op == "call_function" and _follows_axes(value):
            waiting += value.all_input_nodes


def _follows_axes(node: fx.Node) -> bool:
    """True for what moves a weight, acts on each of its elements, or normalises it."""
    rule = rule_of(node.target)
    return rule.moves or rule.labels is pointwise or operator_name(node) == "_weight_norm"
