"""Which share of the cost each width group touches, and how much of the network can be pruned at all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, TypeAlias

from autoprune.space.groups import SearchSpace

Shares: TypeAlias = dict[str, float]
"""`flops` and `params` -> share of the full network, between 0 and 1."""

_Metric: TypeAlias = Literal["flops", "params"]


def group_shares(space: SearchSpace) -> list[Shares]:
    """Per group, the share of all multiply-adds and of all parameters in products and tensors that the group touches.

    A layer between two groups counts for both, so the shares of all groups sum to more than `prunable`.
    """
    touched: list[dict[str, int]] = [{"flops": 0, "params": 0} for _ in space.groups]
    total = {"flops": 0, "params": 0}
    for metric, value, groups in _parts(space):
        total[metric] += value
        for group in groups:
            touched[group][metric] += value
    return [{metric: value / max(1, total[metric]) for metric, value in of_group.items()} for of_group in touched]


def prunable(space: SearchSpace) -> Shares:
    """The share of all multiply-adds and of all parameters that at least one group touches."""
    touched, total = {"flops": 0, "params": 0}, {"flops": 0, "params": 0}
    for metric, value, groups in _parts(space):
        total[metric] += value
        touched[metric] += value if groups else 0
    return {metric: value / max(1, total[metric]) for metric, value in touched.items()}


def _parts(space: SearchSpace) -> Iterator[tuple[_Metric, int, set[int]]]:
    """(metric, full cost, groups that change it) of every product and every parameter."""
    layers = {factors.layer: group for group, factors in space.factored.values()}
    for operation in space.operations:
        value = operation.coefficient * math.prod(size(space.full) for size in operation.sizes)
        groups = {group for size in operation.sizes for group, _ in size.terms}
        if operation.kind in ("conv", "linear") and operation.layer in layers:
            groups.add(layers[operation.layer])
        if space.resolution is not None:
            groups.add(len(space.groups) - 1)
        yield "flops", value, groups
    for tensor in space.tensors:
        if tensor.kind == "parameter":
            groups = {int(g) for axis in tensor.axes if axis is not None for g in set(axis.group.tolist()) if g >= 0}
            if tensor.name in space.presence.tensors:
                groups.add(space.presence.tensors[tensor.name])
            for owners in (space.sparse, space.factored, space.rounded):
                if tensor.name in owners:
                    groups.add(owners[tensor.name][0])
            yield "params", math.prod(tensor.shape), groups
