"""What controllers share: which trials teach, how widths vary, and how repeats are avoided."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable

import numpy as np

from autoprune.controllers.base import Trial, TrialState
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import FloatArray, IntArray, Widths

TRIES = 32
"""Variations (and then random members) looked at before a repeat is accepted."""

_STEP = 0.35
"""Standard deviation of a mutation of log width: a factor of about 1.4 up or down."""


def teachable(trials: Iterable[Trial], *, at_rungs: bool = False) -> list[tuple[Trial, float]]:
    """Return the trials with a finite score, each with that score, in the order of their numbers.

    Args:
        trials: finished.
        at_rungs: also those that ended at a rung, whose scores are of another scale.
    """
    scored = [
        (trial, trial.score)
        for trial in trials
        if trial.state is not TrialState.FAILED
        and trial.score is not None
        and math.isfinite(trial.score)
        and (at_rungs or not trial.at_rung)
    ]
    return sorted(scored, key=lambda pair: (pair[0].number, pair[0].widths, pair[1]))


def as_widths(row: Iterable[int]) -> Widths:
    """Return one row of a width matrix as a tuple of ints."""
    if isinstance(row, np.ndarray) and row.dtype == np.int64:
        return tuple(row.tolist())
    return tuple(int(w) for w in row)


def mutate(domain: BudgetedSpace, parents: IntArray, share: float, rng: np.random.Generator) -> FloatArray:
    """Return (N, G) mutated widths, not yet repaired: log-normal steps in a random `share` of the groups.

    What takes no steps among them (a block) changes as its kind does.

    Every row changes at least one group. The budget couples the groups, so `repair` moves the others in answer.
    """
    chosen = rng.random(parents.shape) < share
    chosen[np.arange(len(parents)), rng.integers(parents.shape[1], size=len(parents))] = True
    steps = _STEP * rng.standard_normal(parents.shape) * chosen
    return domain.space.kinds.mutated(parents, chosen, steps)


def cross(first: IntArray, second: IntArray, rng: np.random.Generator) -> IntArray:
    """Return (N, G) uniform crossovers, not yet repaired: every group from one of the two parents at random."""
    return np.where(rng.random(first.shape) < 0.5, first, second)


def unseen_member(domain: BudgetedSpace, seen: Container[Widths], rng: np.random.Generator) -> Widths:
    """Return a random member inside the budget that is not in `seen`, or a repeat where `TRIES` draws find none."""
    first = as_widths(domain.sample(1, rng)[0])
    if first not in seen:
        return first
    return _first_unseen(domain.sample(TRIES, rng), seen) or first


def unseen_on_the_way_out(domain: BudgetedSpace, seen: Container[Widths], rng: np.random.Generator) -> Widths:
    """Return an unseen member, a random part of the way from uniform widths to a random member.

    Random members alone all lie about equally far from uniform, the farther the more groups there are.
    """
    kinds = domain.space.kinds
    centre, ends = kinds.log_ratios([domain.uniform()]), kinds.log_ratios(domain.sample(TRIES, rng))
    between = centre + rng.random((TRIES, 1)) * (ends - centre)
    return unseen_variation(domain, kinds.decided(kinds.from_log_ratios(between)), seen, rng)


def unseen_variation(
    domain: BudgetedSpace, proposals: FloatArray | IntArray, seen: Container[Widths], rng: np.random.Generator
) -> Widths:
    """Return the first of the (N, G) proposals that is not in `seen` once repaired, else any unseen member."""
    return _first_unseen(domain.repair(proposals), seen) or unseen_member(domain, seen, rng)


def unseen_near(domain: BudgetedSpace, widths: Widths, seen: Container[Widths], rng: np.random.Generator) -> Widths:
    """Return an unseen variation of these widths in about one group, else any unseen member."""
    parents = np.repeat([widths], TRIES, axis=0)
    return unseen_variation(domain, mutate(domain, parents, 1 / len(widths), rng), seen, rng)


def _first_unseen(members: IntArray, seen: Container[Widths]) -> Widths | None:
    rows = (as_widths(row) for row in members)
    return next((row for row in rows if row not in seen), None)
