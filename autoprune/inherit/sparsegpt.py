"""SparseGPT's update: the weights that stay make up for those of the same output that go, column by column.

Frantar and Alistarh 2023, SparseGPT, arXiv 2301.00774, equations 3 and 5 and algorithm 1; Optimal Brain Surgeon
(Hassibi and Stork 1992) for a layer's squared error, with one inverse for all outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, TypeAlias, final

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.inherit.base import Changes, Inheritance, Statistics
from autoprune.inherit.fitting import IMAGES, calibration, check_images, too_wide
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.masks import masks_of
from autoprune.space.cutting.slicing import tensor_of
from autoprune.statistics.calls import WeightCall
from autoprune.statistics.consumers import Consumer
from autoprune.statistics.moments import gather_moments
from autoprune.statistics.rows import matrix_weight, weight_matrix

_METHOD = "sparsegpt"
_BLOCK = 128
"""Columns after which all later ones are updated at once, as in the paper."""

_Factor: TypeAlias = tuple[WeightCall, Tensor]


@final
class SparseGPT(Inheritance):
    """For networks that lose single weights: what goes is spread over the weights of the same output that come later.

    With H the second moments of a layer's inputs and U the upper Cholesky factor of H^-1 (H^-1 = U^T U), column i of
    the weights W, which loses some of its entries, sends e = (its lost entries) / U_ii on: W[:, i:] -= e U[i, i:]. Each
    step is the Optimal Brain Surgeon's among the columns from i on, so that one factor serves all outputs.

    As in the paper, H has 0.01 of the mean of its diagonal added. There H comes from inputs that the layers before have
    already changed, and the mask is chosen on the way; here both are those of the dense network: one pass serves all
    candidates. Widths are not its business: a network without masks stays as it is.

    Data: inputs. Cost: one pass of the dense network, once, and a factorisation for each layer; a candidate costs one
    triangular update, outputs x D^2. Memory: D^2 numbers in float64 for each layer of D inputs; layers of more than
    20,000 are left alone.

    Args:
        images: calibration examples; no labels.
        dampening: share of the mean of H's diagonal that is added to it.

    Raises:
        ConfigError: no number of images, a share that is not above 0, or no calibration inputs.
        EvaluationError: no batch with finite values only.
    """

    changes: ClassVar[Changes] = "weights"
    keeps_masks: ClassVar[bool] = True

    def __init__(self, *, images: int = IMAGES, dampening: float = 0.01) -> None:
        if isinstance(dampening, bool) or not isinstance(dampening, int | float) or not 0 < dampening <= 1:
            raise ConfigError(f"{_METHOD}: dampening must be above 0 and at most 1, got {dampening!r}")
        self._images, self._dampening = check_images(_METHOD, images), float(dampening)

    def prepare(self, statistics: Statistics) -> None:
        """See `Inheritance.prepare`."""
        calibration(_METHOD, statistics, self._images)

    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> None:
        """See `Inheritance.apply`."""
        masks = masks_of(cut.network)
        if not masks:
            self.left_alone = {}
            return
        key = (_METHOD, self._images, self._dampening)
        factors = statistics.of_dense(key, dense, lambda: self._factors(cut, dense, statistics))
        self.left_alone = {}
        with torch.no_grad():
            for masked in masks:
                found = factors.get(masked.name, "no call is seen that multiplies by it alone")
                if isinstance(found, str):
                    self.left_alone[masked.name] = found
                    continue
                call, factor = found
                whole = weight_matrix(call, tensor_of(dense, masked.name).detach()).to(factor)
                keep = weight_matrix(call, masked.mask).to(factor.device)
                made = updated(whole, keep, factor)
                masked.weight.copy_(matrix_weight(call, made.to(masked.weight), masked.weight))

    def _factors(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> Mapping[str, _Factor | str]:
        """Name of weights -> the call and U, or why there is none."""
        batches, positions = calibration(_METHOD, statistics, self._images)
        made: dict[str, _Factor | str] = {}

        def wanted(consumer: Consumer) -> bool:
            if consumer.name not in cut.space.sparse:
                return False
            reason = too_wide(consumer.call, dense)
            if reason:
                made[consumer.name] = reason
            return not reason

        found = gather_moments(dense, cut.space, batches, positions=positions, device=statistics.device, only=wanted)
        while found:  # one by one: moments and factors of all layers need not be held at once
            name, moments = found.popitem()
            made[name] = moments.consumer.call, inverse_factor(moments.second, self._dampening)
        return made


def inverse_factor(second: Tensor, dampening: float) -> Tensor:
    """(groups, D, D) U, upper triangular, with U^T U the inverse of second moments with some of their power added."""
    power = second.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    added = torch.where(power > 0, dampening * power, torch.ones_like(power))
    regular = second + added[:, None, None] * torch.eye(second.shape[-1]).to(second)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(regular))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def updated(whole: Tensor, keep: Tensor, factor: Tensor) -> Tensor:
    """(groups, outputs, D) weights of which some are 0 and the others make up for them.

    Args:
        whole: (groups, outputs, D) the dense weights.
        keep: of that shape, True for the weights that stay.
        factor: (groups, D, D) see `inverse_factor`.
    """
    left, number = whole.clone(), whole.shape[-1]
    for start in range(0, number, _BLOCK):
        end = min(start + _BLOCK, number)
        sent = torch.zeros_like(left[..., start:end])
        for i in range(start, end):
            lost = torch.where(keep[..., i], 0.0, left[..., i]) / factor[:, i, i, None]
            left[..., i:end] -= lost[..., None] * factor[:, None, i, i:end]
            sent[..., i - start] = lost
        left[..., end:] -= sent @ factor[:, start:end, end:]
    return torch.where(keep, left, 0.0)
