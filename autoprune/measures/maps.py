"""What measures of maps of classes have in common: pixels counted, one row for each image."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError
from autoprune.measures.base import Measure, Values, with_jackknife
from autoprune.training.objectives.logits import logits_of
from autoprune.training.objectives.maps import IGNORED, map_outputs


class OfPixels(Measure):
    """Of counts of pixels by class, over all images.

    Needs outputs (N, classes, H, W), as they are or as `out` of a mapping, and class numbers (N, H, W); one channel
    stands for the logit of class 1 of two. Pixels of target -100 do not count. The standard error is that of a
    jackknife over images.

    Args:
        background: whether class 0 counts.

    Raises:
        ConfigError: background is neither true nor false.
    """

    unit, lowest, highest, wide = "%", 0.0, 100.0, True

    def __init__(self, *, background: bool = True) -> None:
        if not isinstance(background, bool):
            raise ConfigError(f"{self.name}: background must be true or false, got {background!r}")
        self.background = background

    @abstractmethod
    def shares(self, right: Values, decided: Values, labelled: Values) -> Values:
        """(C,) how good the decisions are for each class, from 0 to 1; NaN for a class that nothing is of.

        Args:
            right: (C,) pixels of a class that are decided to be of it.
            decided: (C,) pixels that are decided to be of it.
            labelled: (C,) pixels that are of it.
        """

    def combine(self, values: Values) -> tuple[float, float | None]:
        """See `Measure.combine`.

        Raises:
            EvaluationError: no pixel counts.
        """
        value, error = with_jackknife(self._percent, values)
        if not math.isfinite(value):
            raise EvaluationError(f"{self.name}: no pixel of a class that counts; give images whose masks name some")
        return value, error

    def _percent(self, rows: Values) -> float:
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = self.shares(*np.split(rows.sum(0).astype(np.float64), 3))
        known = shares[0 if self.background else 1 :]
        known = known[np.isfinite(known)]
        return 100 * float(known.mean()) if len(known) else math.nan

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """Return (N, 3 C) numbers of pixels of each class: decided rightly, decided, labelled; see `Measure.values`."""
        logits, targets = map_outputs(outputs, batch.targets, what=self.name)
        single, counts = logits.shape[1] == 1, targets != IGNORED
        decided = (logits[:, 0] > 0).long() if single else logits.argmax(1)
        classes = 2 if single else logits.shape[1]
        right = counts & (decided == targets)
        counted = ((right, targets), (counts, decided), (counts, targets))
        return torch.cat([_by_class(where, given, classes) for where, given in counted], dim=1)

    def sound(self, outputs: Any, examples: int) -> Tensor:
        """See `Measure.sound`; only the map that counts is looked at."""
        return super().sound(logits_of(outputs, what=self.name), examples)


def _by_class(where: Tensor, given: Tensor, classes: int) -> Tensor:
    """(N, classes) how many pixels of each image are of each class, where they count."""
    n, beyond = len(given), classes + 1
    images = torch.arange(n, device=given.device)[:, None]
    index = images * beyond + torch.where(where, given, classes).flatten(1)
    return torch.bincount(index.flatten(), minlength=n * beyond).reshape(n, beyond)[:, :classes]
