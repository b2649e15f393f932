"""Knowledge distillation: the base network's outputs as targets."""

from __future__ import annotations

import math
from typing import Any, final

from torch import Tensor

from autoprune.config.parts import ChosenPart
from autoprune.errors import ConfigError, EvaluationError
from autoprune.training.objectives.logits import LogitLayout, logits_of
from autoprune.training.objectives.taught import Observed, Taught


@final
class Distillation(Taught):
    """alpha · T² · KL(softmax(teacher / T) || softmax(outputs / T)) + (1 - alpha) · cross entropy, means over examples.

    T² keeps the two gradients of one size whatever the temperature, as the paper says. The paper names no defaults;
    these are those of Tian et al. 2020, arXiv 1910.10699, whose study compares distillation methods. The base network,
    which has no teacher, is trained by cross entropy alone.

    Of tokens (N, T, C) and maps (N, C, H, W) it is a mean over the positions whose target counts (not -100); of labels
    that are there or not (targets of the shape of the outputs) both parts are those of a sigmoid for each, means over
    labels. Without targets the teacher is all that counts.

    Args:
        temperature: T, above 0.
        alpha: share of the teacher, 0 to 1.
        label_smoothing: of the cross entropy; that of the recipe where it is not given.
        hard: another objective in place of the cross entropy.

    Raises:
        ConfigError: a setting out of its range.
    """

    def __init__(
        self,
        *,
        temperature: float = 4.0,
        alpha: float = 0.9,
        label_smoothing: float = 0.0,
        hard: ChosenPart | None = None,
    ) -> None:
        if not 0 < temperature < math.inf or not 0 <= alpha <= 1 or not 0 <= label_smoothing < 1:
            raise ConfigError(
                f"distillation: temperature must be above 0, alpha from 0 to 1 and label_smoothing at least 0 and "
                f"below 1, got {temperature!r}, {alpha!r} and {label_smoothing!r}"
            )
        super().__init__("distillation", hard=hard, label_smoothing=label_smoothing)
        self._temperature, self._alpha = temperature, alpha

    def joined(self, hard: Tensor | None, given: Observed, taught: Observed, targets: Any) -> Tensor:
        """See `Taught.joined`."""
        outputs, known = logits_of(given[0]), logits_of(taught[0])
        if known.shape != outputs.shape:
            raise EvaluationError(
                f"distillation: the base network gives outputs of shape {tuple(known.shape)}, the trained one of "
                f"{tuple(outputs.shape)}; they must tell the same classes apart"
            )
        t = self._temperature
        divergence = LogitLayout.of(outputs, targets).divergence(outputs, known, t)
        if hard is None:
            return t**2 * divergence
        return self._alpha * t**2 * divergence + (1 - self._alpha) * hard
