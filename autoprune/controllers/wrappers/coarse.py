"""Fewer dimensions for any controller: all groups of a stage, of a block or of the network share one ratio.

The controller searches the space in which such groups are one (`space.ties`, as the space option `per` makes it); what
it proposes is written out for the space itself, where `repair` fills what coarse ratios leave of the budget. Unlike the
space option, it changes nothing for allocations, baselines and the winner's final choice. Residual groups and inner
ones are never tied with each other; a group that the space keeps whole stays out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, final, get_args

import numpy as np

from autoprune.config.space import SpaceOptions
from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.parts.proposals import as_widths
from autoprune.cost.budget.notches import Notches
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import BudgetError, ConfigError, suggest
from autoprune.space.groups import FloatArray, SearchSpace, Widths
from autoprune.space.options.ties import partition, tie, tied_sets

Per: TypeAlias = Literal["layer", "block", "stage", "model"]
Importance: TypeAlias = Sequence[FloatArray]
Inner: TypeAlias = Callable[[BudgetedSpace, Importance | None], Controller]
"""(space of fewer groups, their importances) -> the controller that searches it."""

_EQUAL = 0.1
"""Widths whose ratios differ by at most this (in logarithms) count as one ratio."""


@final
class Coarse(Controller):
    """Lets a controller search one ratio per stage, block or model.

    Args:
        domain: the space under its budget.
        per: what has one ratio in common.
        inner: makes the controller of the coarse space.
        importance: per group the (width,) importances of its channels, for controllers that use them.

    Raises:
        ConfigError: an unknown `per`.
        SpaceError: the widths of a set have no common divisor above 1.
        BudgetError: the coarse space cannot reach the budget.
    """

    def __init__(self, domain: BudgetedSpace, *, per: Per, inner: Inner, importance: Importance | None = None) -> None:
        if per not in get_args(Per):
            allowed = get_args(Per)
            raise ConfigError(f"per cannot be {per!r}; allowed: {', '.join(allowed)}.{suggest(str(per), allowed)}")
        space = domain.space
        tied = (_that_can_be_cut(space, indices) for indices in tied_sets(space, SpaceOptions(per=per)))
        sets = [indices for indices in tied if len(indices) > 1]
        self._domain, self._notches = domain, Notches(space)
        self._members = partition(len(space.groups), sets)
        self._coarse = _same_budget(domain, _with_choices(tie(space, sets), space, self._members), per)
        self._full = np.array(space.full, dtype=np.float64)
        self._units = np.array(self._coarse.space.full, dtype=np.float64)
        self._owner = np.empty(len(self._full), dtype=np.int64)
        for new, members in enumerate(self._members):
            self._owner[list(members)] = new
        self._inner = inner(self._coarse, None if importance is None else self._merged(importance))
        self.keeps_budget, self.one_budget = self._inner.keeps_budget, self._inner.one_budget
        self._asked: dict[Widths, dict[Widths, None]] = defaultdict(dict)  # distinct, in the order of asking

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` proposals of the controller, written out for all groups."""
        proposals = []
        for coarse in self._inner.ask(n):
            proposals.append(self._written_out(coarse))
            self._asked[proposals[-1]][coarse] = None
        return proposals

    def tell(self, trials: Sequence[Trial]) -> None:
        """Let the controller learn from its own proposals, and from others' whose groups share their ratios."""
        told = []
        for trial in trials:
            own = self._asked.get(trial.widths) or self._coarse_widths(trial.widths)
            told += [replace(trial, widths=widths) for widths in own]
        self._inner.tell(told)

    def winners(self) -> Mapping[float, Widths]:
        """Return those of the controller, written out for all groups."""
        return {share: self._written_out(coarse) for share, coarse in self._inner.winners().items()}

    def learned(self) -> Any:
        """Return what the controller has learned of the coarse space."""
        return self._inner.learned()

    def _written_out(self, coarse: Widths) -> Widths:
        fine = self._raw(coarse)
        if as_widths(self._coarse.repair(np.array([coarse]))[0]) == coarse:
            return as_widths(self._domain.repair(fine)[0])
        return as_widths(self._notches.round_down(fine)[0])  # meant to be larger than the budget, or smaller

    def _raw(self, coarse: Widths) -> FloatArray:
        """(1, G) widths of all groups at the coarse ratios; whole numbers, as units divide every width."""
        ratios = np.array(coarse) / self._units
        return np.rint(ratios[self._owner] * self._full)[None, :]

    def _coarse_widths(self, fine: Widths) -> list[Widths]:
        """The coarse widths of these, where every set has one ratio but for rounding; else none."""
        logs = np.log(np.maximum(np.array(fine) / self._full, 1e-3))
        coarse = []
        for group, members in zip(self._coarse.space.groups, self._members, strict=True):
            choices = np.log(np.maximum(np.array(group.choices) / group.width, 1e-3))
            coarse.append(group.choices[int(np.abs(choices - logs[list(members)].mean()).argmin())])
        back = np.log(np.maximum(self._raw(tuple(coarse))[0] / self._full, 1e-3))
        return [tuple(coarse)] if np.abs(back - logs).max() <= _EQUAL else []

    def _merged(self, importance: Importance) -> list[FloatArray]:
        """Per coarse group the importance of each unit: the sum over the channels that come with it, best first."""
        merged = []
        for group, members in zip(self._coarse.space.groups, self._members, strict=True):
            ranked = [-np.sort(-np.asarray(importance[old], dtype=np.float64)) for old in members]
            merged.append(np.sum([of_group.reshape(group.width, -1).sum(axis=1) for of_group in ranked], axis=0))
        return merged


def _that_can_be_cut(space: SearchSpace, indices: Sequence[int]) -> tuple[int, ...]:
    """Those with a choice: one that stays whole would keep all groups tied with it whole."""
    return tuple(index for index in indices if len(space.groups[index].choices) > 1)


def _with_choices(tied: SearchSpace, space: SearchSpace, members: Sequence[Sequence[int]]) -> SearchSpace:
    """The tied space with ratios enough: all of them where the groups of a set allow hardly any in common.

    Channels in multiples of 8 of 24 and of 64 have no ratio in common; what is written out is rounded.
    """
    groups = []
    for group, indices in zip(tied.groups, members, strict=True):
        own = [space.groups[index] for index in indices]
        if len(group.choices) < min(len(fine.choices) for fine in own):
            least = max(fine.choices[0] / fine.width for fine in own)
            units = range(max(1, math.ceil(least * group.width - 1e-9)), group.width + 1)
            group = replace(group, choices=tuple(units))
        groups.append(group)
    return replace(tied, groups=tuple(groups))


def _same_budget(domain: BudgetedSpace, space: SearchSpace, per: Per) -> BudgetedSpace:
    """Another space of the same network under the limits of the domain."""
    try:
        return BudgetedSpace(space, domain.budget.constraints, metrics=domain.budget.settings)
    except BudgetError as error:
        raise BudgetError(
            f"per {per}: one ratio for all groups of a {per} leaves too few networks: {error}, or leave per out"
        ) from error
