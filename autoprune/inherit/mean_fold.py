"""Mean folding: what the cut channels gave on average goes on as a constant.

Bias compensation of FLAP, An et al. AAAI 2024, Fluctuation-based Adaptive Structured Pruning for Large Language Models;
for channels that a batch norm has silenced, the folding of ReLU(beta) of Ye et al. ICLR 2018, Rethinking
the Smaller-Norm-Less-Informative Assumption.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, TypeAlias, final

import torch
from torch import Tensor, nn

from autoprune.inherit.base import Changes, Inheritance, Statistics
from autoprune.inherit.bn_recalibration import CALIBRATION_BATCHES, check_batches
from autoprune.inherit.channel_calls import ChannelCall
from autoprune.inherit.gathering import Gathered, gather
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import tensor_of

_Means: TypeAlias = dict[torch.Size, tuple[Tensor, int]]
"""Shape of one example -> sum over examples of that shape, and their number."""


@final
class MeanFold(Inheritance):
    """A consumer with weight W that reads u keeps the mean of each output: b += mean(W u) - mean(W' u').

    W' and u' are what is left of both, after the methods before this one: sliced, the difference is W mean(u) of the
    channels that are cut, FLAP's formula; with other weights (`reuse`), it is what these miss. Least squares fit
    constants themselves, and this is refused beside them. Means are those of the dense network, over examples and
    output positions, zeros of the padding included: of all constants the best one in squared error. Where cut channels
    are constant (batch norm with gamma 0: ReLU(beta)), the cut network computes what the dense one does, but for
    borders that padding makes.

    The constant goes into the bias of the consumer; where it has none, out of the running mean of a batch norm right
    behind it. `bn_recalibration` brings about the latter, too, so that this matters where outputs meet no norm: linear
    layers, sums, transformers. It stands before recalibration, and not beside `merge`.

    Data: inputs. Cost: one pass; a candidate costs each consumer on one example. Memory: one example per consumer.

    Args:
        batches: training batches that means are taken over.

    Raises:
        ConfigError: fewer than 1 batch, or no calibration inputs.
        EvaluationError: no batch with finite values only.
    """

    changes: ClassVar[Changes] = "offsets"

    def __init__(self, *, batches: int = CALIBRATION_BATCHES) -> None:
        self._batches = check_batches("mean_fold", batches)

    def prepare(self, statistics: Statistics) -> None:
        """See `Inheritance.prepare`."""
        statistics.needed("mean_fold", self._batches)

    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> None:
        """See `Inheritance.apply`."""
        gathered = statistics.of_dense(
            ("mean inputs", self._batches), dense, lambda: self._gather(cut, dense, statistics)
        )
        left_alone = dict.fromkeys(
            (name for name in gathered.unseen if name in cut.kept), "no call that reads it is known"
        )
        offsets: dict[str, list[tuple[Tensor, int]]] = {}
        for key, (consumer, means) in gathered.calls.items():
            if not consumer.lost_inputs(cut):
                continue
            target, sign = _place(consumer, gathered.norms.get(key))
            if target is not None and target in cut.kept:
                missing, number = _missing(consumer, means, cut, dense)
                offsets.setdefault(target, []).append((sign * missing, number))
            elif key not in gathered.norms:
                left_alone[consumer.weight] = "it has no bias, and no batch norm right behind it"
        with torch.no_grad():
            for name, found in offsets.items():
                tensor = tensor_of(cut.network, name)
                total = sum(number for _, number in found)
                mean = torch.stack([offset * (number / total) for offset, number in found]).sum(dim=0)
                tensor.add_(mean.to(tensor.device, tensor.dtype))
        self.left_alone = left_alone

    def _gather(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> Gathered[_Means]:
        return gather(
            dense,
            cut.space,
            statistics.needed("mean_fold", self._batches),
            device=statistics.device,
            measure=_measure,
            combine=_combine,
            tensors=_tensors,
        )


def _place(consumer: ChannelCall, norm: str | None) -> tuple[str | None, int]:
    """Where a constant can go, and with which sign."""
    return (consumer.bias, 1) if consumer.bias is not None else (norm, -1)


def _measure(consumer: ChannelCall, inputs: Tensor, weight: Tensor) -> _Means:
    """The mean example; a linear function gives for it the mean of what it gives for all of them."""
    if inputs.ndim < 2 + consumer.spatial:  # no batch
        return {inputs.shape: (inputs.double(), 1)}
    examples = inputs.flatten(0, -2) if consumer.spatial == 0 else inputs
    return {examples.shape[1:]: (examples.double().sum(dim=0), len(examples))}


def _combine(one: _Means, other: _Means) -> _Means:
    both = dict(one)
    for shape, (total, number) in other.items():
        known = both.get(shape)
        both[shape] = (total, number) if known is None else (known[0] + total, known[1] + number)
    return both


def _tensors(means: _Means) -> Iterable[Tensor]:
    return (total for total, _ in means.values())


def _missing(consumer: ChannelCall, means: _Means, cut: Cut, dense: nn.Module) -> tuple[Tensor, int]:
    """(kept outputs,) the mean that they have lost, and over how many positions."""
    before, after = consumer.dense_weight(cut, dense), tensor_of(cut.network, consumer.weight).detach()
    kept = consumer.kept(cut)
    total, positions = torch.zeros((), dtype=torch.float64), 0
    for summed, number in means.values():
        mean = summed / number
        own = mean if kept is None else _select(consumer, mean, kept)
        lost = _ran(consumer, mean, before) - _ran(consumer, own, after)
        total = total.to(lost.device) + number * lost.sum(dim=1)
        positions += number * lost.shape[1]
    return total / positions, positions


def _ran(consumer: ChannelCall, mean: Tensor, weight: Tensor) -> Tensor:
    """(outputs, positions) for one example."""
    outputs = consumer.call.run(mean[None], weight.to(mean))[0]
    by_output = outputs.movedim(outputs.ndim - 1 - consumer.spatial, 0)
    return by_output.reshape(len(by_output), -1)


def _select(consumer: ChannelCall, values: Tensor, kept: Tensor) -> Tensor:
    """Inputs of the cut consumer: of every block the channels that are left."""
    dim = values.ndim - 1 - consumer.spatial
    size = values.shape[dim] // consumer.blocks
    starts = torch.arange(consumer.blocks, device=values.device)[:, None] * size
    return values.index_select(dim, (starts + kept.to(values.device)).flatten())
