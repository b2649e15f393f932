"""Logits of any task: where the classes lie, the loss on the targets, and how far they are from the teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from autoprune.errors import EvaluationError
from autoprune.training.scores import class_outputs

IGNORED = -100
"""A target that does not count, as in torch and transformers."""


def logits_of(outputs: Any, *, what: str = "distillation") -> Tensor:
    """The logits among the outputs of a network: the tensor itself, `logits` or `out` of it, or the first of several.

    Raises:
        EvaluationError: there are none.
    """
    found = outputs
    for name in ("logits", "out"):
        inner = found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)
        if isinstance(inner, Tensor):
            found = inner
    if isinstance(found, tuple | list) and found:
        found = found[0]
    if isinstance(found, Tensor) and found.is_floating_point() and found.ndim >= 1:
        return found
    kind = f"{type(outputs).__name__} of {', '.join(map(str, outputs))}" if isinstance(outputs, Mapping) else ""
    raise EvaluationError(
        f"{what}: the network returned {kind or type(outputs).__name__}, in which no logits are known; let it return a "
        f"tensor, or something with `logits` or `out`"
    )


@final
@dataclass(frozen=True, slots=True, eq=False)
class LogitLayout:
    """Logits of classes with one target each, or of labels that are there or not.

    Attributes:
        axis: of the classes; None: each number is a label by itself.
        counts: (N, positions) where targets count; None: everywhere.
    """

    axis: int | None
    counts: Tensor | None = None

    @classmethod
    def of(cls, logits: Tensor, targets: Any) -> LogitLayout:
        """What the shapes say.

        (N, C) and class numbers (N,), tokens (N, T, C) and (N, T), maps (N, C, H, W) and (N, H, W), or
        numbers from 0 to 1 of one shape. Without targets: (N, C), (N, T, C) or (N, C, H, W).

        Raises:
            EvaluationError: none of these.
        """
        if targets is None:
            return cls(1 if logits.ndim in (2, 4, 5) else -1)
        if isinstance(targets, Tensor) and targets.is_floating_point() and targets.shape == logits.shape:
            return cls(None)
        if isinstance(targets, Tensor) and not targets.is_floating_point():
            for axis in (logits.ndim - 1, 1):
                if 0 < axis < logits.ndim and logits.shape[:axis] + logits.shape[axis + 1 :] == targets.shape:
                    return cls(axis, None if targets.ndim == 1 else (targets != IGNORED).flatten(1))
        given = f"{targets.dtype} {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
        raise EvaluationError(
            f"distillation: logits of shape {tuple(logits.shape)} and targets {given} do not fit; give class numbers "
            f"of the shape without the classes, or numbers from 0 to 1 of the same shape. Of regression, choose "
            f"relative_error; of other tasks, give the loss on targets as `hard`"
        )

    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float) -> Tensor:
        """Cross entropy with the targets: a mean over examples of means over the positions that count."""
        if self.axis is None:
            smooth = targets * (1 - smoothing) + smoothing / 2 if smoothing else targets
            return F.binary_cross_entropy_with_logits(logits, smooth.to(logits.dtype))
        if self.counts is None:
            return F.cross_entropy(class_outputs(logits, targets), targets, label_smoothing=smoothing)
        each = F.cross_entropy(
            logits.movedim(self.axis, 1), targets, label_smoothing=smoothing, ignore_index=IGNORED, reduction="none"
        )
        return self._mean(each.flatten(1))

    def divergence(self, logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
        """KL(taught || logits) at a temperature: a mean over examples, of means over positions or labels."""
        given, known = logits / temperature, taught / temperature
        if self.axis is None:
            p = known.sigmoid()
            there = p * (F.logsigmoid(known) - F.logsigmoid(given))
            return (there + (1 - p) * (F.logsigmoid(-known) - F.logsigmoid(-given))).mean()
        log_q, log_p = F.log_softmax(given, dim=self.axis), F.log_softmax(known, dim=self.axis)
        if logits.ndim == 2:
            return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        each = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(self.axis).flatten(1)
        return each.mean() if self.counts is None else self._mean(each)

    def _mean(self, each: Tensor) -> Tensor:
        """(N, positions) -> the mean over examples; one without any position that counts has 0."""
        assert self.counts is not None
        kept = torch.where(self.counts, each, 0)
        return (kept.sum(1) / self.counts.sum(1).clamp(min=1)).mean()
