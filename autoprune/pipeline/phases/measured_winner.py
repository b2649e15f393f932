"""Under a latency budget the last word is a measurement: the best candidates are run, the winner keeps its limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from autoprune.cost.latency.profile_files import read_profile
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.files import read_json
from autoprune.latency.choice import METRIC, LatencyChoice, MeasuredFinal, choose_by_latency
from autoprune.latency.measure import AGREED, measure_many
from autoprune.pipeline.phases.context import RunContext
from autoprune.space.groups import Widths

_FILE = "latency.json"
_REPEATS = 200


def measured_winner(run: RunContext, ranked: Sequence[Widths], factory: CandidateFactory) -> Widths:
    """The best candidate that is measured inside the latency limit; the first one where no latency is limited.

    What was measured is kept in `latency.json`, so that a resumed run decides as the first one did.

    Args:
        run: is told where even the fastest one is above the limit.
        ranked: candidates, the best first.
        factory: builds them.

    Raises:
        AutopruneError: the profile is not of this machine, or a network does not run.
    """
    directory, domain, example = run.directory, run.domain, run.prepared.run_inputs.example
    if (directory / _FILE).is_file():
        return LatencyChoice.from_json(read_json(directory / _FILE)).winner.widths
    choice = choose_by_latency(domain, ranked, factory.candidate, example)
    if choice is None:
        return ranked[0]
    profile = read_profile(domain.budget.settings[METRIC]["profile"])
    error = None if profile.error is None else asdict(profile.error)
    directory.write_json(_FILE, {**choice.to_json(), "profile": {"date": profile.date, "error": error}})
    if not choice.kept:
        run.progress.note(
            f"no network was measured within latency_ms ≤ {choice.limit:.4g}; the fastest took "
            f"{choice.winner.latency.quiet:.4g}: profile this device again while nothing else runs on it"
        )
    return choice.winner.widths


def measure_compared(
    run: RunContext, named: Mapping[str, Widths], factory: CandidateFactory
) -> Mapping[str, Any] | None:
    """Measure the networks of the comparison and the unpruned one in turns, and add them to `latency.json`, once.

    The winner was chosen by its measurement, which flatters it; this is another one.

    Args:
        run: under a latency limit, or not.
        named: what is compared.
        factory: builds them.

    Returns:
        The content of `latency.json`; None where nothing was measured in this run.

    Raises:
        EvaluationError: a network does not run.
    """
    directory, domain, example = run.directory, run.domain, run.prepared.run_inputs.example
    if not (directory / _FILE).is_file():
        return None
    facts = read_json(directory / _FILE)
    if "compared" not in facts:
        conditions = LatencyChoice.from_json(facts).winner.latency.conditions
        rows = [*named.values(), domain.space.full]
        built = [factory.candidate(row) for row in rows]
        found = measure_many(built, example, conditions, repeats=_REPEATS, agree=AGREED)
        predicted = domain.budget.metrics[METRIC](np.array(rows))
        facts["compared"] = {
            name: MeasuredFinal(widths, float(ms), latency, name != "unpruned").to_json()
            for name, widths, ms, latency in zip((*named, "unpruned"), rows, predicted, found, strict=True)
        }
        directory.write_json(_FILE, facts)
    return read_json(directory / _FILE)
