"""Everything that can be wrong with a job is found here, before a run directory is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autoprune.config.job import Job
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.cost.latency.profile_files import profile_fingerprint
from autoprune.cost.unpriced import MissingKernelsError
from autoprune.errors import BudgetError
from autoprune.latency.choice import METRIC as LATENCY
from autoprune.pipeline.checks import check_data, check_parts, check_trainings, rehearse_parts
from autoprune.pipeline.fingerprints import job_fingerprint, weights_fingerprint
from autoprune.pipeline.phases.measured_latency import check_latency
from autoprune.pipeline.prepared import Prepared, RunInputs
from autoprune.pipeline.profiling import profile_command
from autoprune.space.groups import SearchSpace
from autoprune.space.origin import origin_of
from autoprune.space.tracing.program import Example
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.training.integrity import Snapshot, check_finite


def prepare(run_inputs: RunInputs) -> tuple[Prepared, ...]:
    """Trace, verify and budget the space, once for all budgets of the job, and build each of its parts; writes nothing.

    Raises:
        AutopruneError: the model, the space options, a budget, a name or a setting cannot be used.
    """
    job, task = run_inputs.job, run_inputs.task
    check_parts(job)
    check_trainings(run_inputs)
    check_finite(run_inputs.model)
    given = Snapshot(run_inputs.model)
    traced = trace(run_inputs.model, run_inputs.example, options=job.space)
    verified = verify(run_inputs.model, traced, seed=job.seed)
    fingerprints = {
        "model code": traced.code_fingerprint,
        "space": verified.space.fingerprint,
        "data": task.fingerprint,
        "weights": weights_fingerprint(run_inputs.model),
        **_of_profile(job),
    }
    origin = origin_of(traced) if verified.space.form == "graph" else None
    family = tuple(
        Prepared(
            replace(run_inputs, job=one),
            verified.network,
            verified.space,
            origin,
            _domain(verified.space, one, run_inputs.example),
            {"job": job_fingerprint(one), **fingerprints},
            given,
        )
        for one in job.family
    )
    for prepared in family:
        rehearse_parts(prepared)
    check_data(verified.network, task, form=verified.space.form)
    check_latency(family[0])
    return family


def _of_profile(job: Job) -> dict[str, str]:
    """The fingerprint of the device profile, where there is one."""
    profile = job.metrics.get(LATENCY, {}).get("profile")
    return {} if profile is None else {"device profile": profile_fingerprint(profile)}


def _domain(space: SearchSpace, job: Job, example: Example) -> BudgetedSpace:
    constraints: Mapping[str, Any] = job.constraints
    try:
        domain = BudgetedSpace(space, constraints, metrics=job.metrics)
    except MissingKernelsError as error:
        profile = job.metrics.get(LATENCY, {}).get("profile")
        raise MissingKernelsError(error.what, profile_command(job, example, profile)) from None
    if not domain.budget.binds:
        raise BudgetError(f"budget {domain.budget} cuts nothing: the full network keeps it; give a limit below 100%")
    return domain
