"""Any metric of torchmetrics."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError, blame, suggest
from autoprune.measures.base import Measure, Values, with_jackknife
from autoprune.training.objectives.logits import logits_of

_MOST = 10_000
"""So many numbers of an example are kept until the metric is computed."""


@final
class OfTorchmetrics(Measure):
    """A metric that torchmetrics has, of the outputs and targets of all examples.

    Outputs are a tensor, or `logits` or `out` of a mapping, as are targets. All of them are kept until the metric is
    computed, so that they may be 10 000 numbers an example at most; the standard error is that of a jackknife.

    Args:
        metric: name of a class of torchmetrics, with its package where it has one: classification.MulticlassAUROC.
        arguments: its keyword arguments, for example {num_classes: 10}.
        higher_is_better: None: as the metric says.

    Raises:
        ConfigError: torchmetrics is not installed or has no such metric, the arguments are not its, or it does not say
            which way is better.
    """

    name, wide = "torchmetrics", True

    def __init__(
        self, *, metric: str, arguments: Mapping[str, Any] | None = None, higher_is_better: bool | None = None
    ) -> None:
        if not isinstance(higher_is_better, bool | None):
            raise ConfigError(f"torchmetrics: higher_is_better must be true, false or null, got {higher_is_better!r}")
        self._part, self._arguments = _class_of(metric), dict(arguments or {})
        with blame(ConfigError, f"torchmetrics: {metric} cannot be made with {self._arguments}", then="Correct them."):
            says = getattr(self._part(**self._arguments), "higher_is_better", None)
        if higher_is_better is None and says is None:
            raise ConfigError(f"torchmetrics: {metric} does not say which way is better; set higher_is_better")
        self.higher_is_better = bool(says if higher_is_better is None else higher_is_better)
        self.name = metric.rpartition(".")[2]
        self._metric = metric

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """Return (N, K): shapes, then outputs and targets; see `Measure.values`.

        Raises:
            EvaluationError: no tensors, or too many numbers.
        """
        found, targets = logits_of(outputs, what=f"torchmetrics {self._metric}"), batch.targets
        if not isinstance(targets, Tensor) or len(targets) != len(found):
            raise EvaluationError(f"torchmetrics {self._metric} needs a tensor of targets, one row for each example")
        whole = not targets.is_floating_point()
        header = [int(whole), found.ndim - 1, *found.shape[1:], targets.ndim - 1, *targets.shape[1:]]
        rows = [part.to(found.device).double().reshape(len(found), -1) for part in (found, targets)]
        if sum(part.shape[1] for part in rows) > _MOST:
            raise EvaluationError(
                f"torchmetrics {self._metric}: outputs and targets of an example are "
                f"{sum(part.shape[1] for part in rows):,} numbers, at most {_MOST:,} are kept; choose another measure"
            )
        about = torch.tensor(header, dtype=torch.float64, device=found.device).expand(len(found), -1)
        return torch.cat([about, *rows], dim=1)

    def combine(self, values: Values) -> tuple[float, float | None]:
        """See `Measure.combine`.

        Raises:
            EvaluationError: the metric gives no number.
        """
        with blame(EvaluationError, f"torchmetrics {self._metric} fails", then="Correct its arguments."):
            value, error = with_jackknife(self._computed, values)
        if not math.isfinite(value):
            raise EvaluationError(
                f"torchmetrics {self._metric} gives {value}; choose another metric or other arguments"
            )
        return value, error

    def _computed(self, rows: Values) -> float:
        metric = self._part(**self._arguments)
        metric.update(*_unpacked(rows))
        found = metric.compute()
        if not isinstance(found, Tensor) or found.numel() != 1:
            told = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise EvaluationError(
                f"torchmetrics {self._metric} gives {told}; set its average, so that it is one number"
            )
        return float(found)


def _class_of(metric: str) -> Any:
    package, _, name = metric.rpartition(".")
    then = "Install it, pip install 'autoprune[torchmetrics]', or correct the name."
    with blame(ConfigError, f"torchmetrics: {metric} cannot be imported", then=then):
        module: Any = importlib.import_module(f"torchmetrics{package and '.'}{package}")
    if not isinstance(getattr(module, name, None), type):
        known = [one for one in vars(module) if one[:1].isupper()]
        raise ConfigError(f"torchmetrics has no metric {metric!r}.{suggest(name, known)}")
    return getattr(module, name)


def _unpacked(rows: Values) -> tuple[Tensor, Tensor]:
    """Outputs and targets."""
    header = rows[0].astype(np.int64)
    axes = int(header[1])
    shape, targets_at = header[2 : 2 + axes], 2 + axes
    of_targets = header[targets_at + 1 : targets_at + 1 + int(header[targets_at])]
    start = targets_at + 1 + len(of_targets)
    split = start + int(np.prod(shape, dtype=np.int64))
    end = split + int(np.prod(of_targets, dtype=np.int64))
    outputs = torch.from_numpy(rows[:, start:split]).reshape(len(rows), *shape.tolist()).float()
    targets = torch.from_numpy(rows[:, split:end]).reshape(len(rows), *of_targets.tolist())
    return outputs, targets.long() if header[0] else targets.float()
