"""What rules share: the row of an operator, giving up with a reason, and tying parameters to channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, fx

from autoprune.space.tracing.calls import Call, Channels, LabelGraph, WeightLabels
from autoprune.space.tracing.labels import FIXED, VOID, compact, varies
from autoprune.space.tracing.resize import Arguments, Sized

Rule: TypeAlias = Callable[[LabelGraph, Call], Any]
"""(graph, call) -> labels of the output: a tensor, or a list of them."""

Resize: TypeAlias = Callable[[Sized], Arguments]
"""A call at new widths -> its arguments."""


_MOST_COPIES = 1 << 22
"""More copies of one value are not followed one by one."""


def never(node: fx.Node) -> bool:
    """False: what is cut counts for nothing where it is 0."""
    return False


def always(node: fx.Node) -> bool:
    """True: a statistic, over channels where they lie along its dimensions."""
    return True


@final
@dataclass(frozen=True, slots=True)
class OperatorRule:
    """All that is known of an operator.

    Attributes:
        labels: what it does to channel labels.
        resize: how its arguments follow the widths, where there are sizes among them.
        run: calls it at new widths, where other arguments alone would not do.
        note: (graph, call, labels of its output): notes what must be counted besides them when sizes follow the widths.
        of_weight: what it does to the labels of a weight that `forward` computes, as (graph, call, weight) -> labels;
            None: what moves labels moves those, what is pointwise unites them, and nothing else is known.
        statistic: node -> whether zeros would change what it makes of the other channels: a mean, a softmax.
        moves: it moves labels and ties nothing.
        reads: it knows a weight's axes.
        adopts: its result may know no channels and take those of what it is used with (one value, spread over all).
    """

    labels: Rule
    resize: Resize | None = None
    run: Callable[[Sized], Any] | None = None
    note: Callable[[LabelGraph, Call, Any], None] | None = None
    of_weight: Callable[[LabelGraph, Call, WeightLabels], Any] | None = None
    statistic: Callable[[fx.Node], bool] = never
    moves: bool = False
    reads: bool = False
    adopts: bool = False

    @property
    def carries_sizes(self) -> bool:
        """True where a call must be put right when widths change."""
        return self.resize is not None or self.run is not None

    def call(self, call: Sized) -> Any:
        """Run the operator with its sizes put right."""
        if self.run is not None:
            return self.run(call)
        return call.node.target(**(self.resize(call) if self.resize else call.arguments))  # type: ignore[operator]


def unknown(graph: LabelGraph, call: Call, why: str | None = None) -> Any:
    """Freeze whatever reaches the operator; its outputs cannot change size."""
    reason = f"{call.place}: {why or f'operator {call.target} has no rule'}"
    for value in call.tensors:
        graph.freeze(value, reason)
    graph.give_up(call, reason)
    fixed = torch.tensor(FIXED)
    if isinstance(call.value, Tensor):
        return fixed.expand(call.value.shape)
    if isinstance(call.value, tuple | list):
        return [fixed.expand(v.shape) if isinstance(v, Tensor) else v for v in call.value]
    return call.value


def tie_parameter(graph: LabelGraph, parameter: Any, channel: Channels, call: Call) -> None:
    """A vector with one entry per channel: a bias, a norm's scale, a running mean."""
    if graph.is_weight(parameter):
        graph.unions.unite(graph.axes_of(parameter)[0], channel, f"{call.place} has a fixed number of channels")
    else:
        graph.unions.unite(graph.labels(parameter), channel, f"{call.place} uses a computed parameter")


def fed(call: Call) -> str:
    """Why inputs of fixed size freeze what is read beside them."""
    return f"{call.layer or call.place} reads them beside inputs of fixed size"


def varying(labels: Tensor) -> list[int]:
    """Dimensions along which channels change."""
    return [dim for dim in range(labels.ndim) if varies(labels, dim)]


def tie_within(graph: LabelGraph, labels: Tensor, keep: Sequence[int], reason: str) -> Tensor:
    """Tie all channels that differ only along dimensions outside `keep`; returns labels constant along those."""
    heads = labels.movedim(list(keep), list(range(len(keep))))
    rows = heads.reshape(*heads.shape[: len(keep)], -1)
    first = rows.max(dim=-1).values
    if rows.shape[-1] > 1 and bool((rows != rows[..., :1]).any()):
        graph.unions.unite(rows, first[..., None].expand(rows.shape), reason)
    view = [labels.shape[d] if d in keep else 1 for d in range(labels.ndim)]
    order = sorted(range(len(keep)), key=lambda i: keep[i])
    return first.permute(order).reshape(view).expand(labels.shape)


def is_one(labels: Tensor) -> bool:
    """True where nothing is told apart: a constant, or one channel."""
    return bool(labels.numel()) and bool(labels.amin() == labels.amax())


def stretched(graph: LabelGraph, call: Call, x: Tensor, shape: Sequence[int], *, inner: bool = False) -> Tensor:
    """Labels of a value that forward spreads: `expand`, `repeat`, `cat([x] * n)`.

    As where it is spread by itself, it says nothing about what lies there: each copy belongs to what it meets. What was
    spread before (a mask over the batch) and is spread once more (over heads) is such copies along all dimensions;
    where those of before meet channels (`LabelGraph.together`), it keeps its labels.

    Args:
        graph: the book.
        call: where.
        x: labels of the value.
        shape: of the result.
        inner: copies of one index lie beside each other (`repeat_interleave`), not those of one copy.
    """
    x = x.reshape([1] * (len(shape) - x.ndim) + list(x.shape))
    times = [n // old if old else 1 for n, old in zip(shape, x.shape, strict=True)]
    if not is_one(x) and (not graph.unions.is_constant(x) or graph.node in graph.together):
        return x.expand(tuple(shape))
    if not 1 < math.prod(times) < _MOST_COPIES:
        return x.flatten()[0].expand(tuple(shape)) if is_one(x) else x.expand(tuple(shape))
    every = [n if r > 1 or varies(x, dim) else 1 for dim, (n, r) in enumerate(zip(shape, times, strict=True))]
    fits = all(r == 1 or old == 1 for r, old in zip(times, x.shape, strict=True))
    if fits and not is_one(x) and graph.unions.is_spread(x) and math.prod(every) < _MOST_COPIES:
        copies = graph.unions.fresh(*every, spread=True)
        graph.spread_again[graph.node] = (x, copies)
        return copies.expand(tuple(shape))
    if is_one(x):
        graph.unions.freeze(x, f"{call.place} spreads one channel over all others")
    copies = graph.unions.fresh(*times, spread=True)
    for dim, (n, old, r) in enumerate(zip(shape, x.shape, times, strict=True)):
        if r > 1 and old > 1:
            copies = copies.index_select(dim, torch.arange(n) % r if inner else torch.arange(n) // old)
    return copies.expand(tuple(shape))


def unite_broadcast(graph: LabelGraph, call: Call, operands: Sequence[Tensor], shape: Sequence[int]) -> list[Tensor]:
    """Prepare operands of an elementwise operator for being united: those that speak, expanded to the output shape.

    An operand of size 1 along a dimension in which the others' channels vary says nothing about those channels (a
    spatial attention map, a mask). Where it also has a size of its own along another such dimension (a rotary angle
    for every dimension of a head), the others are tied along that one: whole heads stay whole. Where it has one channel
    for each head (a norm of queries written out, a gate), it goes with that.
    """
    padded = [o.reshape([1] * (len(shape) - o.ndim) + list(o.shape)) for o in operands]
    speaking: list[Tensor] = []
    tied: set[int] = set()
    spoken = [{d for d in graph.unions.splits(operand) if operand.shape[d] == shape[d]} for operand in padded]
    copied = set[int]().union(*(varying(operand) for operand in padded if graph.unions.is_spread(operand)))
    for index, operand in enumerate(padded):
        rivals = [i for i in range(len(padded)) if i != index and not _outranks(padded, spoken, index, i)]
        others = set[int]().union(*(spoken[i] for i in rivals))
        if copied and not bool((operand > 0).any()):
            others |= copied
        if others and all(operand.shape[d] == shape[d] for d in others):
            graph.spread_out(operand, others)
        wide = [other for i, other in enumerate(padded) if i != index]
        narrow = any(operand.shape[d] == 1 and shape[d] > 1 for d in others)
        if narrow and not _is_per_unit(graph, operand, others, wide):
            own = {d for d in others if operand.shape[d] > 1 and not bool((operand == VOID).all())}
            graph.unions.freeze(operand, f"{call.place} spreads one channel over all others")
            tied |= own
        else:
            speaking.append(operand.expand(tuple(shape)))
    for position, operand in enumerate(speaking if tied else ()):
        keep = [d for d in varying(operand) if d not in tied]
        if keep:
            reason = f"{call.place} combines them with a tensor whose size is fixed"
            speaking[position] = tie_within(graph, operand, keep, reason)
        else:
            graph.unions.freeze(operand, f"{call.place} combines them with a tensor whose size is fixed")
    return speaking


def _outranks(operands: Sequence[Tensor], spoken: Sequence[set[int]], one: int, other: int) -> bool:
    """True where two operands each spread over the channels of the other (an outer product), and one has more.

    Only the channels of one can be cut, those along the other's dimensions stay.
    """
    if not spoken[one] or not spoken[other]:
        return False
    apart = all(operands[a].shape[d] == 1 for a, b in ((one, other), (other, one)) for d in spoken[b])
    sizes = [math.prod(operands[i].shape[d] for d in spoken[i]) for i in (one, other)]
    return apart and (sizes[0], other) > (sizes[1], one)


def _is_per_unit(graph: LabelGraph, operand: Tensor, dims: set[int], wide: Sequence[Tensor]) -> bool:
    """True where an operand has a channel for every unit (a head) of the others, and one index inside each of them."""
    own = [d for d in varying(operand) if d in dims]
    if graph.attention != "heads" or not own or not bool((operand > 0).all()):
        return False
    for labels in wide:
        spoken = graph.unions.splits(labels)
        inside = [d for d in spoken if operand.shape[d] == 1]
        if inside and max(_pitch(labels, d) for d in inside) >= min((_pitch(labels, d) for d in own), default=0):
            return False
    return True


def _pitch(labels: Tensor, dim: int) -> int:
    """How far apart in their producer channels lie that are neighbours along a dimension; 0 where none do."""
    n = labels.shape[dim]
    if n < 2 or labels.stride(dim) == 0:
        return 0
    values = compact(labels)
    steps = (values.narrow(dim, 1, n - 1) - values.narrow(dim, 0, n - 1)).abs()
    return int(steps[steps > 0].min()) if bool((steps > 0).any()) else 0
