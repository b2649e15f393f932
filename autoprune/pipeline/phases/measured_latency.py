"""How long the networks of the verdict take on this device, in every report: fewer FLOPs need not be less time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from autoprune.allocation import UNIFORM
from autoprune.config.job import Job
from autoprune.config.latency import LatencyOptions
from autoprune.cost.latency.device_profile import Conditions
from autoprune.errors import AutopruneError, ConfigError, EvaluationError, blame
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.files import read_json
from autoprune.latency.choice import METRIC
from autoprune.latency.measure import make_backend, measure_many, ready, running
from autoprune.pipeline.phases.context import RunContext
from autoprune.pipeline.prepared import Prepared
from autoprune.randomness import untouched
from autoprune.verdict.record import MEASURED_LATENCY, WINNER, Arm

UNPRUNED = "unpruned"
_WARM_UP = 2


def conditions_of(options: LatencyOptions, device: torch.device) -> Conditions:
    """The conditions that a job asks for.

    Raises:
        ConfigError: one of them is out of its range.
    """
    asked = {name: value for name, value in options.model_dump().items() if name != "seconds"}
    return Conditions(**asked, device="cpu" if device.type == "cpu" else str(device))


def by_profile(job: Job) -> bool:
    """Whether latency is limited and measured as its device profile was, so that `verdict: latency` says nothing."""
    return METRIC in job.constraints and not job.metrics.get(METRIC, {}).get("elsewhere")


def check_changeable(job: Job, changed: Collection[str]) -> None:
    """Refuse to conclude a run anew for what would change nothing.

    Args:
        job: as it is to be.
        changed: its keys that are other ones.

    Raises:
        ConfigError: `verdict.latency` is one of them, and latency is limited.
    """
    if "verdict.latency" in changed and by_profile(job):
        raise ConfigError(
            "verdict.latency cannot be changed: latency_ms is limited, and networks are measured under the conditions "
            "of its device profile; leave it as it is, or give another profile in metrics"
        )


def check_latency(prepared: Prepared) -> None:
    """Make the full network ready under conditions other than the default ones, so that none fails after the search.

    Raises:
        AutopruneError: a condition, or a package that is missing.
    """
    options, task = prepared.run_inputs.job.verdict.latency, prepared.run_inputs.task
    if options is None or options == LatencyOptions() or by_profile(prepared.run_inputs.job):
        return
    conditions = conditions_of(options, task.device)
    backend = make_backend(conditions)
    failing = blame(
        EvaluationError,
        f"verdict: latency: the model cannot be measured under {conditions}",
        then="Change these options, or set verdict: latency: false.",
    )
    with failing, running(conditions), untouched():
        ready(backend, prepared.network, prepared.run_inputs.example, conditions)()


def measure_latency(run: RunContext, compared: Sequence[Arm], factory: CandidateFactory) -> Mapping[str, Any] | None:
    """Measure winner, uniform and unpruned networks in turns, once in the life of a run.

    It can fail where a network runs in batches of the data only, or on a device that cannot be timed; then the report
    says why, and the run goes on.

    Args:
        run: whose device they run on.
        compared: all arms.
        factory: builds them.

    Returns:
        The content of `measured_latency.json`; None where the job wants none.
    """
    options, directory = run.job.verdict.latency, run.directory
    if options is None:
        return None
    if not (directory / MEASURED_LATENCY).is_file():
        named = {arm.name: arm.widths for arm in compared if arm.name in (WINNER, *UNIFORM)}
        named[UNPRUNED] = run.domain.space.full
        distinct = list(dict.fromkeys(named.values()))
        try:
            with blame(EvaluationError, "the networks cannot be measured"), untouched():
                found = _measured(run, options, [factory.candidate(widths) for widths in distinct])
            rows = dict(zip(distinct, found, strict=True))
            facts: dict[str, Any] = {"networks": {name: rows[widths] for name, widths in named.items()}}
        except (AutopruneError, MemoryError) as error:
            facts = {"error": str(error) or type(error).__name__}
            run.progress.note(f"latency is not in the report: {facts['error']}")
        directory.write_json(MEASURED_LATENCY, facts)
    return read_json(directory / MEASURED_LATENCY)


def _measured(run: RunContext, options: LatencyOptions, networks: Sequence[nn.Module]) -> list[dict[str, Any]]:
    conditions = conditions_of(options, run.task.device)
    example = run.prepared.run_inputs.example
    found = measure_many(networks, example, conditions, warmup=_WARM_UP, seconds=options.seconds)
    return [latency.to_json() for latency in found]
