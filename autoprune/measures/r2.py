"""The share of the variance of targets that is explained."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError
from autoprune.measures.base import Measure, Values, with_jackknife
from autoprune.measures.numbers import number_outputs


@final
class R2(Measure):
    """R² = 1 - sum (output - target)² / sum (target - mean target)², the mean over outputs, in percent; 100 at best.

    Needs outputs and targets of one shape; its standard error is that of a jackknife.
    """

    name, unit, highest, wide = "r2", "%", 100.0, True

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """Return (N, 1 + 2 D): D, squared errors, and targets; see `Measure.values`."""
        found, wanted = number_outputs(outputs, batch, what=self.name)
        width = torch.full_like(wanted[:, :1], wanted.shape[1])
        return torch.cat([width, (found - wanted).square(), wanted], dim=1)

    def combine(self, values: Values) -> tuple[float, float | None]:
        """See `Measure.combine`.

        Raises:
            EvaluationError: all targets of an output are equal, or examples differ in how many they have.
        """
        widths, values = values[:, 0], values[:, 1:]
        if np.ptp(widths):
            raise EvaluationError(
                f"r2 is a mean over outputs, and examples have from {int(widths.min())} to {int(widths.max())} of "
                f"them; choose mean_squared_error"
            )
        targets = values[:, values.shape[1] // 2 :]
        if not np.ptp(targets, axis=0).all():
            raise EvaluationError("r2: all targets of an output are equal, so that there is no variance to explain")
        return with_jackknife(_percent, values)


def _percent(rows: Values) -> float:
    errors, targets = np.split(rows, 2, axis=1)
    around = np.square(targets - targets.mean(0)).sum(0)
    return float(100 * (1 - errors.sum(0) / around).mean()) if around.all() else float("nan")
