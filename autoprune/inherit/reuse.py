"""Reduce and Reuse: what the kept channels tell of the cut ones goes into the next layer."""

from __future__ import annotations

from typing import ClassVar, TypeAlias, final

import torch
from torch import Tensor, nn

from autoprune.inherit.base import Changes, Inheritance, Statistics
from autoprune.inherit.bn_recalibration import CALIBRATION_BATCHES, check_batches
from autoprune.inherit.channel_calls import ChannelCall
from autoprune.inherit.gathering import gather
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import tensor_of

RIDGE = 1e-6
"""Of the mean square of the kept channels: far below what matters, far above rounding in double precision."""

_Moments: TypeAlias = tuple[Tensor, int]
"""(blocks, channels, channels) sums of products over examples and positions, and how many these are."""


@final
class Reuse(Inheritance):
    """A = argmin ||Y - A Y'||², folded into the consumer: W' = W A; Y are its inputs, Y' those of them that are kept.

    Polyak and Wolf 2015, Channel-Level Acceleration of Deep Face Representations. There A is a new 1 × 1
    convolution behind the reduced layer; what reads its outputs without anything in between can take A in, and inputs
    of consumers are just that, norm and activation function included. A mixes channels, the same at each position: with
    3 × 3 kernels `least_squares` can do more, with 1 × 1 ones and linear layers this is it, without its constant.
    A ridge towards the sliced weights, as if there were as many more rows as kept channels (see `fitting.ridge`), keeps
    few rows from being fitted exactly; ||Y - A Y'||² is never above that of plain slicing on the data it is made from.

    Data: inputs. Cost: one pass with C × C products for each consumer; a candidate costs a factorisation of kept
    × kept. Left alone are weights that are used elsewhere, too (a tied embedding). `mean_fold` after it adds the
    constant.

    Args:
        batches: training batches.

    Raises:
        ConfigError: fewer than 1 batch, or no calibration inputs.
        EvaluationError: no batch with finite values only.
    """

    changes: ClassVar[Changes] = "weights"

    def __init__(self, *, batches: int = CALIBRATION_BATCHES) -> None:
        self._batches = check_batches("reuse", batches)

    def prepare(self, statistics: Statistics) -> None:
        """See `Inheritance.prepare`."""
        statistics.needed("reuse", self._batches)

    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> None:
        """See `Inheritance.apply`."""
        gathered = statistics.of_dense(
            ("products of inputs", self._batches),
            dense,
            lambda: gather(
                dense,
                cut.space,
                statistics.needed("reuse", self._batches),
                device=statistics.device,
                measure=_measure,
                combine=_combine,
                tensors=lambda moments: moments[:1],
            ),
        )
        self.left_alone = gathered.left_alone(cut)
        with torch.no_grad():
            for consumer, moments in gathered.by_weight(_combine):
                if consumer.lost_inputs(cut) and consumer.weight not in self.left_alone:
                    _fold(consumer, moments, cut, dense)


def _measure(consumer: ChannelCall, inputs: Tensor, weight: Tensor) -> _Moments:
    rows = consumer.channels.apart(consumer.rows(inputs), 2)  # (positions, blocks, places, channels)
    rows = rows.movedim(1, 0).flatten(1, 2).double()
    return rows.mT @ rows, rows.shape[1]


def _combine(one: _Moments, other: _Moments) -> _Moments:
    return one[0] + other[0], one[1] + other[1]


def _fold(consumer: ChannelCall, moments: _Moments, cut: Cut, dense: nn.Module) -> None:
    inputs = consumer.kept(cut)
    if inputs is None:
        return
    products, rows = moments
    kept, gone = (some.to(products.device) for some in consumer.channels.kept(inputs))
    target = tensor_of(cut.network, consumer.weight)
    matrix = consumer.matrix(consumer.dense_weight(cut, dense)).to(products)
    matrix = consumer.channels.apart(matrix, 1)  # (blocks, places, channels, outputs)
    own = products[:, kept]
    told = solve(own[:, :, kept], own[:, :, gone], ridge=max(RIDGE, len(kept) / max(rows, 1)))  # (blocks, kept, gone)
    folded = matrix[:, :, kept] + told[:, None] @ matrix[:, :, gone]
    target.copy_(consumer.weights(consumer.channels.together(folded, 1, inputs), target))


def solve(square: Tensor, sides: Tensor, *, ridge: float = RIDGE) -> Tensor:
    """(square + ridge)⁻¹ sides.

    Args:
        square: (…, n, n) positive semi-definite.
        sides: (…, n, m).
        ridge: relative to the mean of the diagonal.
    """
    scale = square.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    added = torch.where(scale > 0, ridge * scale, torch.ones_like(scale))
    regular = square + added[..., None, None] * torch.eye(square.shape[-1], dtype=square.dtype, device=square.device)
    return torch.cholesky_solve(sides, torch.linalg.cholesky(regular))
