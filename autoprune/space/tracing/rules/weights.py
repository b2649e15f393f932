"""Weights that `forward` computes before it uses them: standardised, scaled, transposed, merged."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from autoprune.space.tracing.calls import Call, LabelGraph, Parameter, WeightLabels
from autoprune.space.tracing.labels import VOID, varies
from autoprune.space.tracing.rules.base import OperatorRule, Rule, tie_parameter, unknown
from autoprune.space.tracing.rules.elementwise import pointwise
from autoprune.space.tracing.rules.norms import batch_norm


def computed_weight(graph: LabelGraph, call: Call, rule: OperatorRule) -> Any:
    """Follow each axis of a weight on its own.

    Args:
        graph: the book.
        call: an operator with at least one weight among its arguments.
        rule: of the operator.
    """
    weights = [graph.weight(value) for value in call.weights]
    made = _computed(graph, call, rule, weights)
    if not all(weight.of_activations for weight in weights):
        return made
    return tree_map(lambda m: replace(m, of_activations=True) if isinstance(m, WeightLabels) else m, made)


def _computed(graph: LabelGraph, call: Call, rule: OperatorRule, weights: list[WeightLabels]) -> Any:
    if rule.of_weight is not None:
        return rule.of_weight(graph, call, weights[0])
    if rule.moves and len(weights) == len(call.tensors) and len({len(w.factors) for w in weights}) == 1:
        return _moved(graph, call, weights, rule.labels)
    if rule.labels is pointwise and all(_by_axis(weight, len(call.shape)) is not None for weight in weights):
        return _combined(graph, call, weights)
    if all(weight.of_activations for weight in weights):
        return _one_kind(graph, call, rule, weights)
    why = "weights of different shapes" if rule.labels is pointwise else f"{call.name} of a weight has no rule"
    return unknown(graph, call, why)


def _one_kind(graph: LabelGraph, call: Call, rule: OperatorRule, weights: list[WeightLabels]) -> Any:
    """Of activations with channels of two kinds the one of more channels, the other frozen: what any rule can read."""
    counts = [len(np.unique(labels[labels > 0].numpy())) for labels in weights[0].factors]
    kept = counts.index(max(counts))
    for weight in weights:
        for labels in (*weight.factors[:kept], *weight.factors[kept + 1 :]):
            graph.unions.freeze(labels, f"{call.place}: its input has channels along two dimensions")

    def read(value: Any) -> Any:
        return value.factors[min(kept, len(value.factors) - 1)] if isinstance(value, WeightLabels) else value

    arguments = tree_map(read, dict(call.arguments), is_leaf=lambda value: isinstance(value, WeightLabels | Parameter))
    return rule.labels(graph, replace(call, arguments=arguments))


def _moved(graph: LabelGraph, call: Call, weights: list[WeightLabels], moves: Rule) -> Any:
    made: list[Any] = []
    for index in range(len(weights[0].factors)):
        pieces = iter(weights)
        arguments = call.with_labels(lambda value, pieces=pieces, index=index: next(pieces).factors[index])  # type: ignore[misc]
        made.append(moves(graph, replace(call, arguments=arguments)))
    in_place = weights[0].source if call.shape == weights[0].shape else None
    if isinstance(made[0], Tensor):
        return WeightLabels(tuple(made), in_place)
    return [WeightLabels(tuple(parts)) for parts in zip(*made, strict=True)]


def _combined(graph: LabelGraph, call: Call, weights: list[WeightLabels]) -> Any:
    """Weights of one shape or one that spreads over the other (a scale per output) are tied axis by axis."""
    reason = f"{call.place} combines a weight with a tensor whose size is fixed"
    axes: dict[int, Tensor] = {}
    for weight in weights:
        for dim, factor in (_by_axis(weight, len(call.shape)) or {}).items():
            if dim in axes:
                shape = np.broadcast_shapes(axes[dim].shape, factor.shape)
                graph.unions.unite(axes[dim].expand(shape), factor.expand(shape), reason)
            axes.setdefault(dim, factor)
    first = next((w for w in weights if w.shape == call.shape), None)
    factors = tuple(factor.expand(call.shape) for factor in axes.values())
    made = WeightLabels(factors, first.source if first else None) if factors else weights[0]
    for value in call.tensors:
        if isinstance(value, WeightLabels) or (isinstance(value, Parameter) and value.is_weight):
            continue
        labels = graph.labels(value)
        labels = labels.reshape([1] * (len(call.shape) - labels.ndim) + list(labels.shape))
        for factor in made.factors:
            for dim in range(factor.ndim):
                if labels.shape[dim] > 1 and varies(factor, dim) and not bool((labels == VOID).all()):
                    graph.unions.unite(factor, labels.expand(factor.shape), reason)
    return made


def _by_axis(weight: WeightLabels, n_dims: int) -> dict[int, Tensor] | None:
    """Dimension -> the labels along it; None where those of two axes lie along one."""
    found: dict[int, Tensor] = {}
    for factor in weight.factors:
        factor = factor.reshape([1] * (n_dims - factor.ndim) + list(factor.shape))
        dims = [d for d in range(n_dims) if varies(factor, d)]
        if len(dims) != 1 or dims[0] in found:
            return None
        found[dims[0]] = factor
    return found


def weight_norm(graph: LabelGraph, call: Call) -> Any:
    """`_weight_norm`: directions of length one, over what is left of them, times a length for each index of `dim`."""
    direction, length = call["v"], call["g"]
    if not graph.is_weight(direction):
        return unknown(graph, call, "weight norm of a computed tensor")
    weight = graph.weight(direction)
    lengths = graph.axes_of(length) if graph.is_weight(length) else None
    dim = int(call.arguments.get("dim", 0))
    if lengths and dim >= 0 and len(lengths[dim]) > 1:
        vector = graph.axes_of(weight)[dim]
        graph.unions.unite(vector, lengths[dim], f"{call.place} has a fixed number of channels")
    return weight


def quantised(graph: LabelGraph, call: Call) -> Any:
    """Fake quantisation of weights or activations, with one scale for all or one for each channel of an axis."""
    value, given = call.tensors[0], call.get("axis")
    per_row = call.name == "fake_quantize_per_channel_affine" or bool(call.get("per_row_fake_quant"))
    axis = int(call["ch_axis"] if given is None else given) if per_row else 0
    weight = graph.is_weight(value) and (isinstance(value, WeightLabels) or value.is_weight)
    if per_row:
        labels = (
            graph.axes_of(value)[axis] if weight else graph.unions.per_channel(graph.labels(value), axis, call.place)
        )
        for parameter in call.tensors[1:]:
            if math.prod(parameter.shape) == len(labels) > 1:
                tie_parameter(graph, parameter, labels, call)
    return graph.weight(value) if weight else graph.labels(value)


def same_weight(graph: LabelGraph, call: Call, weight: WeightLabels) -> Any:
    """A softmax and its kin leave all axes where they are."""
    return weight


def spread_over_weight(graph: LabelGraph, call: Call, weight: WeightLabels) -> Any:
    """`expand_as`: what is spread over a weight lies along its axes."""
    first, other = call.tensors
    if isinstance(first, WeightLabels) or not isinstance(other, WeightLabels):
        return unknown(graph, call, "a weight that is spread")
    labels = graph.labels(first)
    labels = labels.reshape([1] * (len(other.shape) - labels.ndim) + list(labels.shape))
    for factor in other.factors:
        for dim in range(factor.ndim):
            if labels.shape[dim] > 1 and varies(factor, dim):
                graph.unions.unite(factor, labels.expand(factor.shape), f"{call.place} spreads them over others")
    return other


def normalised_weight(graph: LabelGraph, call: Call, weight: WeightLabels) -> Any:
    """A weight standardised by batch norm: its axis 1 is that of the channels."""
    for factor in weight.factors:
        if varies(factor, 1):
            batch_norm(graph, replace(call, arguments={**call.arguments, "input": factor}))
    return weight


def reduced_weight(graph: LabelGraph, call: Call, weight: WeightLabels) -> Any:
    """A mean, sum or norm of a weight keeps the axes that it does not run over."""
    given = call.get("dim")
    n_dims = len(weight.shape)
    dims = list(range(n_dims)) if given is None or given == [] else ([given] if isinstance(given, int) else list(given))
    left = [factor for factor in weight.factors if not any(varies(factor, d) for d in dims)]
    fixed = torch.zeros(1, dtype=torch.int64).expand(weight.shape)
    reduced = [factor.amax(dims, keepdim=bool(call.get("keepdim"))) for factor in left or [fixed]]
    if isinstance(call.value, Tensor):
        return reduced[0] if len(reduced) == 1 else WeightLabels(tuple(reduced))
    return [reduced[0] if len(reduced) == 1 else WeightLabels(tuple(reduced)) for _ in call.value]
