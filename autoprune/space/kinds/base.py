"""What a kind of group decides for itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias, final

import numpy as np

from autoprune.space.arrays import BoolArray, FloatArray, IntArray

Usage: TypeAlias = Callable[[FloatArray], FloatArray]
"""(N, G) widths -> (N,) shares of a budget that they use."""


LACKING = 0.5
"""Of what can be left out, a random network lacks a random share of at most this."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Settling:
    """Rows of proposals that are put onto a budget, for a kind that does not scale.

    Attributes:
        given: (N, G) proposals.
        low: (N, G) the least that each group may become; those of the kind are to be set to what it decides.
        high: (N, G) the most, likewise.
        uses: (G,) what each group that does not scale uses of the budget in the smallest network that has them all.
        usage: the budget.
        enough: a row that uses less than this share has room for more.
        columns: (k,) the groups of the kind that is asked.
    """

    given: FloatArray
    low: FloatArray
    high: FloatArray
    uses: FloatArray
    usage: Usage
    enough: float
    columns: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


class Kind(ABC):
    """How widths of one kind of group behave; matrices are (N, k), a column for each group of the kind.

    Attributes:
        least: the smallest width that a group may have.
        scales: one factor on all such groups puts a network onto a budget, and one ratio makes it uniform. What does
            not scale is settled first, then held; it stays whole in uniform networks.
        switches: every group of the kind is named for a block of the space, which its width 0 leaves out.
        ranked: importances say which units go first.
        rule: the key of `kinds` in a space file that holds for it; None: those of channels.
        counted: attributes of modules count its units, and must follow a cut.
        label: how it is shown beside the name of a group; "" where it goes without saying.
        single: what goes are single weights: no tensor gets smaller.
    """

    least: ClassVar[int] = 1
    scales: ClassVar[bool] = True
    switches: ClassVar[bool] = False
    ranked: ClassVar[bool] = True
    rule: ClassVar[str | None] = None
    counted: ClassVar[bool] = False
    label: ClassVar[str] = ""
    single: ClassVar[bool] = False

    @abstractmethod
    def drawn(self, full: FloatArray, ratios: FloatArray, chances: FloatArray) -> FloatArray:
        """Return random proposals.

        Args:
            full: (k,) full widths.
            ratios: random shares of the full widths.
            chances: even draws from 0 to 1, lowered by up to a half, the same for a whole row: what comes and goes is
                there from 0 on, so that a row lacks a share of its own of it.
        """

    @abstractmethod
    def mutated(self, parents: FloatArray, chosen: BoolArray, steps: FloatArray) -> FloatArray:
        """Return proposals beside the parents.

        Args:
            parents: widths.
            chosen: what is to change.
            steps: of the logarithm of a width; 0 where nothing is to change.
        """

    @abstractmethod
    def log_ratios(self, ratios: FloatArray) -> FloatArray:
        """Return coordinates of shares of the full widths: their logarithms where it can be, 0 where they are full."""

    @abstractmethod
    def from_log_ratios(self, logs: FloatArray, full: FloatArray) -> FloatArray:
        """Return widths of coordinates, those above 0 as of 0; members come back as they were."""

    @abstractmethod
    def moved(self, logs: FloatArray, steps: FloatArray, chosen: BoolArray) -> FloatArray:
        """Return coordinates of a neighbour: all take their steps, or the chosen ones alone where steps are large."""

    @abstractmethod
    def near(self, logs: FloatArray, centre: FloatArray, distance: float) -> FloatArray:
        """Return coordinates at most this far from the (1, k) ones of the centre, where the kind knows distances."""

    def decided(self, proposals: FloatArray) -> FloatArray:
        """Return proposals without what stands between two states."""
        return proposals

    def ranks(self, scores: FloatArray, width: int, rows: int) -> IntArray:
        """Return at which width each slot of a set comes in, counted from 0; ties keep their order.

        Args:
            scores: (slots,) importances.
            width: of the group.
            rows: in so many equal parts slots are compared with one another, for kinds that know parts.
        """
        order = np.argsort(-scores, kind="stable")
        ranks: IntArray = np.argsort(order, kind="stable") * width // len(scores)
        return ranks

    @abstractmethod
    def settle(self, rows: Settling) -> None:
        """Set the bounds of its groups in every row to what they shall be, in place; nothing for a kind that scales."""
