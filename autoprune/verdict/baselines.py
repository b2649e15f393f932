"""Baselines go through the same door as the search: same budget band, evaluator, seeds and ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from autoprune.allocation import UNIFORM
from autoprune.config.parts import ChosenPart
from autoprune.controllers.base import Trial
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import BudgetError
from autoprune.space.groups import FloatArray, Widths
from autoprune.trials.selection import median_trial
from autoprune.verdict.record import Arm
from autoprune.verdict.rules import RuleInputs, proposals

RANDOM = "random_baseline"
_CURVE = (0.6, 0.8, 1.0, 1.25, 1.6)
"""Budgets at which uniform pruning is scored for the report, as multiples of the search's."""


def plan(
    domain: BudgetedSpace,
    scores: Sequence[FloatArray],
    *,
    allocations: Sequence[ChosenPart],
    random_candidates: int,
    seed: int,
    inputs: RuleInputs | None = None,
    skipped: Callable[[str, str], None] = lambda label, reason: None,
) -> list[tuple[str, Widths]]:
    """What every search scores first, as (origin, widths): both uniforms, the allocations, random widths.

    The origin of an allocation is its label (`AllocationOptions.label`). A rule is left out that cannot meet the
    budget, as `uniform_inner` where that cannot be reached with full residual groups.

    Args:
        domain: space and budget.
        scores: per group, importance of each channel by the job's criterion.
        allocations: one-shot rules, by name, or with settings and a criterion of their own.
        random_candidates: how many random width vectors.
        seed: of the random widths.
        inputs: what else rules can ask for.
        skipped: told the label of a rule that is left out, and why.

    Raises:
        RegistryError: no allocation has this name.
        ConfigError: a setting that it does not have, it needs what there is not, or it fails.
    """
    found = proposals(domain, scores, (*UNIFORM, *allocations), inputs=inputs, skipped=skipped)
    rng = np.random.default_rng([seed, 1])
    rows = domain.sample(random_candidates, rng)
    return [*found, *((RANDOM, tuple(int(w) for w in row)) for row in rows)]


def curve_budgets(domain: BudgetedSpace) -> list[Widths]:
    """Uniform widths at smaller and larger budgets than the search's, by ascending cost; never the full network."""
    found = []
    for factor in _CURVE:
        scaled = {limit.metric: factor * limit.upper for limit in domain.budget.limits}
        limits = domain.budget.limits
        binds = any(scaled[limit.metric] < limit.full for limit in limits)
        if binds and all(limit.smallest <= scaled[limit.metric] for limit in limits):
            try:
                found.append(domain.scaled(factor).uniform())
            except BudgetError:  # limits that can be reached one by one, but not together
                continue
    return [widths for widths in dict.fromkeys(found) if widths != domain.space.full]


def arms(
    domain: BudgetedSpace, trials: Sequence[Trial], winner: Widths, rescored: Mapping[Widths, float]
) -> tuple[Arm, ...]:
    """The architectures of the final comparison, winner first; a baseline that could not be scored is still trained."""
    costs = domain.budget.costs_of
    searched = sum(trial.score is not None for trial in trials)
    chosen = [Arm("winner", winner, costs(winner), rescored.get(winner), searched)]
    for name in UNIFORM:
        widths = next((trial.widths for trial in trials if trial.origin == name), None)
        if widths is not None:
            chosen.append(Arm(name, widths, costs(widths), rescored.get(widths), 1))
    randoms = [trial for trial in trials if trial.origin == RANDOM]
    median = median_trial(randoms)
    if median is not None:
        chosen.append(
            Arm("random_median", median.widths, costs(median.widths), rescored.get(median.widths), len(randoms))
        )
    return tuple(chosen)
