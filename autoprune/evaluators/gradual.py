"""Cutting in steps while a network trains: where each step lies, how wide it leaves the network, and what makes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import nn

from autoprune.evaluators.candidates import CandidateFactory
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.narrowed import narrowed
from autoprune.space.cutting.slicing import Slicer
from autoprune.space.groups import SearchSpace, Widths
from autoprune.training.cuts import TrainingCuts


def stages(
    space: SearchSpace, widths: Widths, *, steps: int, share: float, epochs: int
) -> tuple[tuple[int, Widths], ...]:
    """(epochs done, widths from then on) of each step, from the first one at 0 to the last one, which has `widths`.

    After step i of k every width has lost the share 1 - (1 - i / k)^3 of what it is to lose (Zhu & Gupta 2017, arXiv
    1710.01878, equation 1, with k pruning steps), rounded to what is allowed. Steps that leave all widths as they were
    are left out, and there are no more steps than epochs for them.

    Args:
        space: its widths are a member of.
        widths: the final ones.
        steps: k.
        share: of the training, over which the steps are spread.
        epochs: of the whole training.
    """
    k = max(1, min(steps, int(share * epochs)))
    found: list[tuple[int, Widths]] = []
    for i in range(1, k + 1):
        left = (1 - i / k) ** 3
        wanted = [width + (full - width) * left for width, full in zip(widths, space.full, strict=True)]
        now = widths if i == k else space.nearest(wanted)
        if not found or now != found[-1][1]:
            found.append((round((i - 1) * share * epochs / k), now))
    return tuple(found)


@final
class GradualCuts:
    """The network that a training in steps begins with, and its cuts.

    Args:
        factory: cuts, and lets weights make up for what is lost.
        planned: see `stages`.
    """

    def __init__(self, factory: CandidateFactory, planned: Sequence[tuple[int, Widths]]) -> None:
        self._factory, self._planned = factory, tuple(planned)
        self._heirs = factory.heirs("training")

    def start(self) -> nn.Module:
        """The network after the first step."""
        return self._heirs(self._planned[0][1])

    @property
    def cuts(self) -> TrainingCuts:
        """All other steps."""
        later = tuple(epochs for epochs, _ in self._planned[1:])
        return TrainingCuts(later, self._cut, f"cut as {self._planned}")

    def _cut(self, network: nn.Module, number: int, inherits: bool) -> Cut:
        now, then = (widths for _, widths in self._planned[number : number + 2])
        space, ranking = narrowed(self._factory.space, self._factory.ranking, now)
        cut = Slicer(network, space, ranking).cut(then)
        return self._heirs.refit(cut, network) if inherits else cut
