"""Scoring that can be trusted: on a copy, of outputs that fit their targets, a number that the measure can have."""

from __future__ import annotations

import math
from numbers import Real

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.errors import EvaluationError
from autoprune.space.copying import copy_network
from autoprune.training.integrity import check_finite

ANY = (-math.inf, math.inf)
"""The range of a score of which nothing is known."""

LOWER = "where it was trained so, lower lr or add warmup_epochs"
"""What to do about a network whose weights are no numbers any more."""


def checked_score(value: object, allowed: tuple[float, float], *, what: str) -> float:
    """Return a score as a float.

    Args:
        value: a real number, or a tensor or array that holds one; no truth value.
        allowed: lowest and highest score there can be.
        what: what gave it, as the start of a sentence.

    Raises:
        EvaluationError: it is something else, not finite, or not in the range.
    """
    holds_one = isinstance(value, Tensor | np.ndarray | np.generic) and math.prod(value.shape) == 1
    plain: object = value.item() if holds_one else value  # type: ignore[attr-defined]  # known by holds_one
    number = math.nan
    if isinstance(plain, Real) and not isinstance(plain, bool):
        try:
            number = float(plain)
        except OverflowError:  # a whole number beyond all floats
            number = math.inf
    low, high = allowed
    if not math.isfinite(number) or not low <= number <= high:
        within = "" if allowed == ANY else f" from {low:g} to {high:g}"
        raise EvaluationError(
            f"{what} must return a finite number{within}, higher is better; it returned {_shown(value)}"
        )
    return number


def scored_copy(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy on `device` in eval mode, to be thrown away: scoring may do anything to it.

    Raises:
        EvaluationError: the model holds values that are no usable numbers.
    """
    check_finite(model, what="a network to be scored", kind=EvaluationError, then=LOWER)
    return copy_network(model).to(device).eval()


def class_outputs(outputs: object, targets: object) -> Tensor:
    """The outputs, if there is one row of at least two for each of the targets, which must name columns.

    The numbers of targets on a GPU are not looked at, as it would be waited for; who reads data has looked at them.

    Raises:
        EvaluationError: they are something else.
    """
    if not isinstance(targets, Tensor):
        raise EvaluationError(
            f"class numbers (N,) are needed as targets, got {type(targets).__name__}; choose another measure or task"
        )
    fits = isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[:1] == targets.shape
    if not isinstance(outputs, Tensor) or not fits or targets.is_floating_point():
        given = f"a tensor of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise EvaluationError(
            f"the network returned {given} for targets of shape {tuple(targets.shape)} and type {targets.dtype}; "
            f"classification needs outputs (N, classes) for class numbers (N,)"
        )
    if targets.device.type != "cpu" and outputs.shape[1] >= 2:
        return outputs
    if int(targets.min()) < 0 or int(targets.max()) >= outputs.shape[1] or outputs.shape[1] < 2:
        raise EvaluationError(
            f"class numbers from {int(targets.min())} to {int(targets.max())} for a network of {outputs.shape[1]} "
            f"outputs; give it at least two outputs and one for each class, numbered from 0"
        )
    return outputs


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:80]}…"
