"""The interface of measures: what a score counts, and one value of it for each example."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from autoprune.config.parts import ChosenPart, NamedPart
from autoprune.config.settings import bind
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, blame
from autoprune.measures import MEASURES
from autoprune.texts import ScoreScale

Values: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
"""(N,) one value per example in the order of the data, as the measure counts; truth values count as 100 and 0 %.
Of measures that are `wide`: (N, K)."""


class Measure(ABC):
    """What a score counts. Values have the measure's own sign; whoever makes scores of them turns it where needed.

    The value of an example depends on this example alone, so that neither their order nor the size of batches matters.

    Attributes:
        name: as a report calls it.
        unit: "%", "nats", …; "" for a bare number.
        higher_is_better: whether a good network has a high value.
        needs_targets: it reads `batch.targets`.
        needs_base: it compares with the outputs of the base network.
        lowest: value that no score is below.
        highest: value that no score is above.
        wide: it is no mean over examples, and `values` gives (N, K) numbers for them that only `combine` reads, such as
            counts; K may differ from batch to batch, rows are then filled up with zeros.
    """

    name: str
    unit: str = ""
    higher_is_better: bool = True
    needs_targets: bool = True
    needs_base: bool = False
    lowest: float = -math.inf
    highest: float = math.inf
    wide: bool = False

    @abstractmethod
    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """Return (N,) one value per example, numbers or truth values, on any device; (N, K) where `wide`.

        Args:
            outputs: of the network for `batch`, in evaluation mode without gradients.
            batch: as it was read, on the CPU; its targets are None where the data have none.
            base: the base network's outputs for the same batch on the device of `outputs`; None unless `needs_base`.

        Raises:
            EvaluationError: outputs that this measure cannot be taken of.
        """

    def settled(self, outputs: Any) -> Measure:
        """Return the measure with everything decided that depends on what networks return; most are as they are.

        Args:
            outputs: of the full network for the first examples.
        """
        return self

    def combine(self, values: Values) -> tuple[float, float | None]:
        """Return the score over all examples and its standard error; None where that is not known.

        The mean, unless a measure is none (then it overrides this, and its values may be any one number per example).

        Args:
            values: of all examples.
        """
        return mean_and_error(values)

    def sound(self, outputs: Any, examples: int) -> Tensor:
        """Return (N,) truth values: whether the outputs for an example are usable numbers.

        Minus infinity masks a class, so only the highest output counts; NaN is higher than any.

        Args:
            outputs: of a network.
            examples: N; tensors that have no row for each of them do not count.
        """
        rows = [tensor.reshape(examples, -1).amax(1).isfinite() for tensor in rows_of(outputs, examples)]
        return torch.stack(rows).all(0) if rows else torch.ones(examples, dtype=torch.bool)

    @property
    def is_mean(self) -> bool:
        """Whether scores are means over examples, so that differences of examples are those of scores."""
        return type(self).combine is Measure.combine

    @property
    def scale(self) -> ScoreScale:
        """How its scores are read."""
        return ScoreScale(self.name, self.unit, self.higher_is_better)

    @property
    def score_range(self) -> tuple[float, float]:
        """Lowest and highest score there can be, of scores of which higher is better."""
        low, high = sorted((self.scale.turned(self.lowest), self.scale.turned(self.highest)))
        return low, high


def make_measure(chosen: ChosenPart) -> Measure:
    """Build a measure by its name, or from {"name": …, "settings": {…}}.

    Raises:
        RegistryError: unknown name.
        ConfigError: a setting that it does not have, or of a wrong value.
    """
    part = NamedPart.of(chosen, "measure")
    make = bind(MEASURES, part.name, part.settings)
    with blame(ConfigError, f"measure {part.label!r} cannot be made", then="Correct its settings or its code."):
        made = make()
    if not isinstance(made, Measure):
        raise ConfigError(f"measure {part.label!r} is a {type(made).__name__}: derive it from autoprune's Measure")
    return made


def rows_of(outputs: Any, examples: int) -> list[Tensor]:
    """The floating-point tensors among outputs of any nesting that have a row for each example.

    Args:
        outputs: of a network.
        examples: how many went in.
    """
    leaves = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return [leaf for leaf in leaves if leaf.ndim and len(leaf) == examples and leaf.numel()]


def mean_and_error(values: Values) -> tuple[float, float | None]:
    """The mean of values and its standard error; of truth values in percent (see `binomial_error`).

    Args:
        values: (N,) one per example.
    """
    n = len(values)
    if values.dtype.kind == "b":
        right = int(values.sum())
        return 100.0 * right / n, 100 * binomial_error(right, n)
    exact = values.astype(np.float64)
    return float(exact.mean()), float(exact.std(ddof=1)) / math.sqrt(n) if n > 1 else None


def with_jackknife(statistic: Callable[[Values], float], values: Values) -> tuple[float, float | None]:
    """A statistic of all examples and its standard error by the jackknife over 20 groups of them.

    Quenouille 1956, Notes on bias in estimation, Biometrika 43: with s_g the statistic without group g, of G groups,
    the squared error is (G - 1) / G · sum_g (s_g - mean s)². Groups are every G-th example.

    Args:
        statistic: of values, in the measure's unit.
        values: one row for each example.
    """
    whole, groups = statistic(values), min(_GROUPS, len(values))
    if groups < 2:
        return whole, None
    number = np.arange(len(values)) % groups
    without = np.array([statistic(values[number != group]) for group in range(groups)])
    spread = float(np.square(without - without.mean()).sum())
    return whole, math.sqrt((groups - 1) / groups * spread) if math.isfinite(spread) else None


_GROUPS = 20


def binomial_error(right: float, examples: int) -> float:
    """Standard error of a share of right answers, with one right and one wrong answer more than there were: never 0.

    Args:
        right: how many were right.
        examples: of so many.
    """
    n = examples + 2
    share = (right + 1) / n
    return math.sqrt(share * (1 - share) / n)
