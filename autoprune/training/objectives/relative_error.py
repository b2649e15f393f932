"""Distillation of regression: the relative error to the base network's outputs."""

from __future__ import annotations

from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

from autoprune.config.parts import ChosenPart
from autoprune.errors import EvaluationError
from autoprune.training.objectives.taught import Observed, Taught, check_share

_LEAST = 1e-12


@final
class RelativeError(Taught):
    """alpha · |outputs - teacher|² / |teacher|² + (1 - alpha) · mean squared error to the targets.

    Norms are over all numbers of an example, of each tensor of the outputs, and the relative error is a mean over
    examples and tensors. The base network is trained by the mean squared error alone.

    Args:
        alpha: share of the teacher, 0 to 1.
        hard: another objective in place of the mean squared error.

    Raises:
        ConfigError: a share outside of 0 to 1.
    """

    def __init__(self, *, alpha: float = 0.5, hard: ChosenPart | None = None) -> None:
        check_share("relative_error", alpha=alpha)
        super().__init__("relative_error", hard=hard if hard is not None else "mse", label_smoothing=0.0)
        self._alpha = alpha

    def joined(self, hard: Tensor | None, given: Observed, taught: Observed, targets: Any) -> Tensor:
        """See `Taught.joined`."""
        pairs = list(zip(*map(_numbers, (given[0], taught[0])), strict=False))
        if not pairs or any(a.shape != b.shape for a, b in pairs):
            shapes = [[tuple(t.shape) for t in _numbers(outputs)] for outputs in (taught[0], given[0])]
            raise EvaluationError(
                f"relative_error: the base network gives outputs of shapes {shapes[0]}, the trained one of "
                f"{shapes[1]}; they must be alike"
            )
        soft = torch.stack([relative_error(a, b) for a, b in pairs]).mean()
        return soft if hard is None else self._alpha * soft + (1 - self._alpha) * hard


def relative_error(values: Tensor, known: Tensor) -> Tensor:
    """Mean over examples of |values - known|² / |known|²."""
    wrong = F.mse_loss(values, known, reduction="none").reshape(len(known), -1).sum(1)
    return (wrong / known.square().reshape(len(known), -1).sum(1).clamp(min=_LEAST)).mean()


def _numbers(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
