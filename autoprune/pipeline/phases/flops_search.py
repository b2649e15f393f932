"""Beside a search under a latency budget: one under the FLOPs of equal latency, which it must be worth more than.

It is a run of its own in a folder of the run: the same job, base network and number of trials, and every score that one
of the two has is the other's. Its winner joins the final comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from autoprune.config.sparsity import SparsityOptions
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import BudgetError
from autoprune.latency.choice import METRIC, flops_of_equal_latency
from autoprune.pipeline.family import Family, ScoreCache, opened
from autoprune.pipeline.fingerprints import job_fingerprint
from autoprune.pipeline.phases.context import RunContext
from autoprune.pipeline.prepared import Prepared
from autoprune.trials.run_directory import RunDirectory
from autoprune.verdict.record import Arm, RunRecord

FOLDER = "flops_search"
"""Of the search by FLOPs, inside the run's directory; also the name of its winner in the comparison."""


def by_flops(prepared: Prepared) -> Prepared | None:
    """The same search under FLOPs in place of latency; the other limits stay.

    Returns:
        What is to be run; None where no latency is limited, it cannot be measured here, the job does without, or the
        FLOPs would limit nothing.
    """
    job, domain = prepared.run_inputs.job, prepared.domain
    limited = any(limit.metric == METRIC for limit in domain.budget.limits)
    if not limited or not job.verdict.flops_search or domain.budget.settings.get(METRIC, {}).get("elsewhere"):
        return None
    limits: dict[str, Any] = {metric: given for metric, given in domain.budget.constraints.items() if metric != METRIC}
    equal = flops_of_equal_latency(domain)
    known = limits.get("flops", {"max": equal})
    limits["flops"] = {**known, "max": min(equal, known["max"])}
    try:
        narrowed = BudgetedSpace(prepared.space, limits, metrics=domain.budget.settings)
    except BudgetError:  # a range of FLOPs that lies above those of equal latency
        return None
    if not narrowed.budget.binds:
        return None
    verdict = job.verdict.model_copy(update={"seeds": 0})
    changed = job.model_copy(update={"constraints": limits, "verdict": verdict, "sparsity": SparsityOptions()})
    return replace(
        prepared,
        run_inputs=replace(prepared.run_inputs, job=changed, callbacks=()),  # they hear of one run at a time
        domain=narrowed,
        fingerprints={**prepared.fingerprints, "job": job_fingerprint(changed)},
    )


def shared_by_both(directory: RunDirectory, storage: str | None) -> Family:
    """The base network and the scores of a run, for the search inside it.

    Args:
        directory: of the run.
        storage: of its ledger.
    """
    return Family(directory.path, ScoreCache.of(directory, storage))


def by_flops_too(family: Family) -> Family:
    """What the searches by FLOPs of a family of budgets share: each begins with what the last of them has learned."""
    return family if family.before is None else replace(family, before=family.before / FOLDER)


def search_by_flops(run: RunContext, narrowed: Prepared, see_through: Callable[..., RunRecord]) -> RunRecord:
    """The search under the FLOPs of equal latency, a run of its own in a folder of this one.

    Args:
        run: the search under latency.
        narrowed: what `by_flops` returned.
        see_through: begins a run or goes on with it, see `autoprune.pipeline.run`.
    """
    run.progress.note(f"beside it, the search under the FLOPs of equal latency: {narrowed.domain.budget}")
    inner = None if run.family is None else by_flops_too(run.family)
    with opened(run.directory / FOLDER) as inside:
        return see_through(narrowed, inside, run.progress, run.engine.engine, inner)


def with_flops_search(
    compared: tuple[Arm, ...], found: RunRecord | None, domain: BudgetedSpace, *, relative: bool = False
) -> tuple[Arm, ...]:
    """The architectures of the final comparison, and the winner of the search by FLOPs where there was one.

    Args:
        compared: the architectures.
        found: the search by FLOPs.
        domain: of the other search.
        relative: scores count in one run alone, so that its winner has none beside these.
    """
    if found is None:
        return compared
    best = found.winner
    costs = domain.budget.costs_of(best.widths)
    return (*compared, Arm(FOLDER, best.widths, costs, None if relative else best.search_score, best.evaluations))
