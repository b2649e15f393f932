"""What a search is measured on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import Widths


@dataclass(frozen=True)
class Experiment:
    """One repetition: noisy scores for the search, and what an answer is really worth.

    Attributes:
        score: what an evaluation of these widths returns; the same widths always return the same.
        gain: of these widths over uniform pruning, on data that `score` has not shown.
        expected: the same without the luck of single rows, where gains have one.
    """

    score: Callable[[Widths], float]
    gain: Callable[[Widths], float]
    expected: Callable[[Widths], float]


class Problem(ABC):
    """A space under a budget whose scores are known.

    Attributes:
        name: for the tables.
        domain: the space under the budget.
        unit: of gains.
    """

    name: str
    domain: BudgetedSpace
    unit: str

    @abstractmethod
    def experiment(self, seed: int) -> Experiment:
        """Draw the noise of one repetition."""

    @property
    @abstractmethod
    def ceiling(self) -> float:
        """Gain that a search could reach at most."""

    @property
    @abstractmethod
    def uniform(self) -> Widths:
        """The widths that gains are differences to; they are the first trial of every search."""
