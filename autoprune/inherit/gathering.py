"""Sums over what the consumers of a dense network are given, in one pass over calibration batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, final

import torch
from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError
from autoprune.inherit.channel_calls import CallKey, ChannelCall, ChannelCalls
from autoprune.randomness import seeded
from autoprune.space.copying import copy_network
from autoprune.space.cutting.cut import Cut
from autoprune.space.groups import SearchSpace

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True, eq=False)
class Gathered(Generic[T]):
    """What was measured at the consumers.

    Attributes:
        calls: (weight, which of its calls) -> the consumer and its value, of all batches together.
        norms: the same key -> name of the running mean that a norm right behind takes away; None: that of the batch.
        elsewhere: weights that are used for something else, too (an embedding).
        unseen: weights that read channels, but in no call that is known.
    """

    calls: Mapping[CallKey, tuple[ChannelCall, T]]
    norms: Mapping[CallKey, str | None]
    elsewhere: frozenset[str]
    unseen: tuple[str, ...]

    def left_alone(self, cut: Cut) -> dict[str, str]:
        """Weights of the cut network that have lost inputs and cannot be fitted -> why."""
        alone = dict.fromkeys(self.unseen, "no call of a known kind reads channels with it")
        alone |= dict.fromkeys(self.elsewhere, "it is used for something else, too")
        return {
            name: why for name, why in alone.items() if name in cut.kept and any(k is not None for k in cut.kept[name])
        }

    def by_weight(self, combine: Callable[[T, T], T]) -> list[tuple[ChannelCall, T]]:
        """One row for each weight."""
        rows: dict[str, tuple[ChannelCall, T]] = {}
        for consumer, value in self.calls.values():
            known = rows.get(consumer.weight)
            rows[consumer.weight] = (consumer, value) if known is None else (known[0], combine(known[1], value))
        return list(rows.values())


def gather(
    dense: nn.Module,
    space: SearchSpace,
    batches: Sequence[Tensor],
    *,
    device: torch.device,
    measure: Callable[[ChannelCall, Tensor, Tensor], T],
    combine: Callable[[T, T], T],
    tensors: Callable[[T], Iterable[Tensor]],
) -> Gathered[T]:
    """Run a copy of the dense network in eval mode, and measure at every consumer.

    Args:
        dense: in the form of the space; only read.
        space: its space.
        batches: of inputs.
        device: where to run.
        measure: (consumer, its inputs, its weight) -> value of one call.
        combine: values of two batches -> one.
        tensors: what must be finite in a value; a batch with one that is not is left out as a whole.

    Raises:
        EvaluationError: no batch has finite values only.
    """
    model = copy_network(dense).to(device).eval()
    total: dict[CallKey, tuple[ChannelCall, T]] = {}
    found: dict[CallKey, tuple[ChannelCall, T]] = {}
    used = 0

    def visit(key: CallKey, consumer: ChannelCall, inputs: Tensor, weight: Tensor) -> None:
        found[key] = consumer, measure(consumer, inputs, weight)

    calls = ChannelCalls(model, space, visit)
    for batch in batches:
        found.clear()
        with seeded(0), torch.no_grad(), calls.batch():
            Batch(batch).to(device).outputs(model)
        if not all(bool(t.isfinite().all()) for _, value in found.values() for t in tensors(value)):
            continue
        used += 1
        for key, (consumer, value) in found.items():
            total[key] = consumer, combine(total[key][1], value) if key in total else value
    if batches and not used:
        raise EvaluationError(
            f"inheritance: the dense network computes values that are not finite on each of {len(batches)} calibration "
            f"batches; check the data and its weights"
        )
    unseen = calls.readers - {consumer.weight for consumer, _ in total.values()}
    return Gathered(total, calls.norms, frozenset(calls.elsewhere & calls.readers), tuple(sorted(unseen)))
