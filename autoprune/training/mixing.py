"""Mixup and CutMix: two examples in one, and the losses on both targets."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError
from autoprune.training.objectives.answers import Answers
from autoprune.training.objectives.base import Objective
from autoprune.training.objectives.features import observed


@final
class Mixing:
    """lam · loss with an example's own targets + (1 - lam) · loss with its partner's, lam from Beta(alpha, alpha).

    mixup (Zhang et al. 2018, arXiv 1710.09412, equation 1): inputs are lam · own + (1 - lam) · partner's. CutMix (Yun
    et al. 2019, arXiv 1905.04899, section 3.1): a box of the partner's, of the share 1 - lam of the area. One lam and
    one box for a batch; an example's partner is the one before it, as in torchvision. With both, each batch is for one
    or the other by chance. It works with any objective, as the network runs once and the objective is asked twice.

    Args:
        mixup: alpha; 0: none.
        cutmix: alpha; 0: none.
    """

    def __init__(self, mixup: float, cutmix: float) -> None:
        self._mixup, self._cutmix = mixup, cutmix

    def loss(self, objective: Objective, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of a mixed batch; random numbers are those of torch's global generator.

        Raises:
            EvaluationError: inputs that cannot be mixed, or no targets.
        """
        if not isinstance(batch.targets, Tensor) or not isinstance(batch.inputs, Tensor):
            raise EvaluationError(
                f"training: mixup and cutmix mix one tensor of inputs with one of targets, and batches hold "
                f"{type(batch.inputs).__name__} and {type(batch.targets).__name__}; leave them out"
            )
        inputs, share = self._mixed(batch.inputs)
        given = observed(model, Batch(inputs), objective.places)
        answers = Answers(given[0], inputs, "mixup or cutmix", given[1])
        teacher = objective.teacher
        try:
            if teacher is not None:
                taught = objective.teach(Batch(inputs), lambda one, asked: observed(one, asked, objective.places))
                objective.teacher = Answers(taught[0], inputs, "mixup or cutmix", taught[1])
            own = objective(answers, Batch(inputs, batch.targets))
            partners = objective(answers, Batch(inputs, batch.targets.roll(1, 0)))
        finally:
            objective.teacher = teacher
        return share * own + (1 - share) * partners

    def _mixed(self, inputs: Tensor) -> tuple[Tensor, float]:
        """Inputs, and the share of each example's own."""
        cuts = bool(self._cutmix) and (not self._mixup or float(torch.rand(())) < 0.5)
        alpha = self._cutmix if cuts else self._mixup
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        if not inputs.is_floating_point() or (cuts and inputs.ndim != 4):
            kind = "images (N, C, H, W)" if cuts else "numbers"
            raise EvaluationError(
                f"training: {'cutmix' if cuts else 'mixup'} mixes {kind}, and inputs are {inputs.dtype} "
                f"{tuple(inputs.shape)}; leave it out"
            )
        partners = inputs.roll(1, 0)
        if not cuts:
            return torch.lerp(partners, inputs, share), share
        height, width = inputs.shape[2:]
        (top, bottom), (left, right) = (_stretch(size, math.sqrt(1 - share)) for size in (height, width))
        mixed = inputs.clone()
        mixed[:, :, top:bottom, left:right] = partners[:, :, top:bottom, left:right]
        return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def _stretch(size: int, share: float) -> tuple[int, int]:
    """Where a stretch of a share of an axis begins and ends, its middle drawn, cut off at the ends."""
    middle, half = int(torch.randint(size, ())), int(0.5 * share * size)
    return max(0, middle - half), min(size, middle + half)
