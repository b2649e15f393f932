"""Any metric of torchmetrics."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Iterator, Mapping
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
        for outputs, targets in _unpacked(rows):
            metric.update(outputs, targets)
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


def _unpacked(rows: Values) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs and targets, as many at once as follow each other in one shape."""
    if not len(rows):
        return
    axes = rows[:, 1].astype(np.int64)
    lengths = 3 + axes + rows[np.arange(len(rows)), 2 + axes].astype(np.int64)
    inside = np.arange(lengths.max()) < lengths[:, None]
    headers = np.where(inside, rows[:, : lengths.max()], -1)  # rows may be of other batches, and then of other shapes
    begins = np.flatnonzero((headers[1:] != headers[:-1]).any(axis=1)) + 1
    for first, last in itertools.pairwise([0, *begins.tolist(), len(rows)]):
        yield _of_one_shape(rows[first:last], int(axes[first]), int(lengths[first]))


def _of_one_shape(rows: Values, axes: int, start: int) -> tuple[Tensor, Tensor]:
    header = rows[0, :start].astype(np.int64)
    shape, of_targets = header[2 : 2 + axes], header[3 + axes :]
    split = start + int(np.prod(shape, dtype=np.int64))
    end = split + int(np.prod(of_targets, dtype=np.int64))
    outputs = torch.from_numpy(rows[:, start:split]).reshape(len(rows), *shape.tolist()).float()
    targets = torch.from_numpy(rows[:, split:end]).reshape(len(rows), *of_targets.tolist())
    return outputs, targets.long() if header[0] else targets.float()
