"""The last phase: judge, then write export, report and, last of all, result.json, which marks a run as ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, final

import yaml

from autoprune.cost import METRICS
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.export.architecture import write_architecture
from autoprune.files import read_json
from autoprune.pipeline.phases.context import RunContext
from autoprune.pipeline.phases.exported import exported_network
from autoprune.pipeline.phases.finals import final_weights
from autoprune.pipeline.phases.reuse import note_reuse
from autoprune.pipeline.phases.search import Searched
from autoprune.pipeline.provenance import now
from autoprune.report.pages import pages, write_reports
from autoprune.space.groups import Widths
from autoprune.trials.run_files import provenance_of
from autoprune.trials.selection import Posterior
from autoprune.verdict.record import ARMS, Arm, CurvePoint, FinalTraining, RunRecord, Verdict, write_record
from autoprune.verdict.statistics import judge
from autoprune.verdict.teaching import told_protocols


@final
@dataclass(frozen=True, eq=False)
class Findings:
    """What the phases before have found.

    Attributes:
        searched: all trials.
        posterior: what is believed of all widths that were scored.
        compared: winner and baselines.
        finals: their final trainings.
        curve: uniform pruning at other costs.
        chances: uniform baseline -> how likely the winner is better.
        latency: what was measured under a latency limit; None for nothing.
        measured: latencies where none is limited; None for nothing.
        rescored: what was scored on all validation data.
    """

    searched: Searched
    posterior: Posterior
    compared: tuple[Arm, ...]
    finals: Sequence[FinalTraining]
    curve: tuple[CurvePoint, ...]
    chances: Mapping[str, float]
    latency: Mapping[str, Any] | None
    measured: Mapping[str, Any] | None
    rescored: Mapping[Widths, float] = field(default_factory=dict)


def conclude(run: RunContext, factory: CandidateFactory, found: Findings) -> RunRecord:
    """The record of the run, written with everything that is made from it."""
    weights = final_weights(run) if found.finals else None
    network = exported_network(factory, found.compared[0].widths, weights)
    for name, why in factory.left_alone.items():
        run.progress.note(f"inherit leaves {name} as it was sliced: {why}")
    test = factory.task.score(factory.model, split="test") if run.task.has_test else None
    note_reuse(run, found.searched.trials, found.rescored, found.compared, found.finals)
    run.directory.update_run(finished=now())
    record = _record(run, found, test)
    export, origin = run.directory / "export", run.prepared.origin
    example = run.prepared.run_inputs.example
    note = run.progress.note
    write_architecture(record, network, export, ranking=factory.ranking, origin=origin, example=example, note=note)
    _export_others(run, factory, record)
    write_reports(record, note=note)
    folders = (export, run.directory / ARMS)
    exported = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    run.directory.list_files([*pages(record), *exported])
    run.directory.write_json("result.json", write_record(record))
    return record


def _export_others(run: RunContext, factory: CandidateFactory, record: RunRecord) -> None:
    """What the winner was compared with, each as it was scored last: the first seed of the first protocol."""
    origin, example, note = run.prepared.origin, run.prepared.run_inputs.example, run.progress.note
    for arm in record.arms[1:]:
        weights = final_weights(run, arm.name) if record.finals else None
        if weights is not None and not weights.is_file():  # trained by a version that kept the winner's only
            run.progress.note(f"the weights of {arm.name} were not kept, as an older version trained it")
            continue
        source = factory.starting_from(arm.start)
        network, folder = exported_network(source, arm.widths, weights), run.directory / ARMS / arm.name
        ranking = source.ranking
        write_architecture(record, network, folder, ranking=ranking, arm=arm, origin=origin, example=example, note=note)


def _record(run: RunContext, found: Findings, test: float | None) -> RunRecord:
    budget, trials, posterior = run.domain.budget, found.searched.trials, found.posterior
    base = read_json(run.directory / "base.json")
    return RunRecord(
        directory=run.directory.path,
        job=yaml.safe_load((run.directory / "job.yaml").read_text()),
        provenance=provenance_of(run.directory.path),
        space=run.prepared.space,
        budget=tuple({**asdict(limit), "percent": limit.percent} for limit in budget.limits),
        full_costs=budget.costs_of(run.prepared.space.full),
        base={**base, "test": test, "test_examples": run.task.test_examples},
        scale=run.task.scale,
        own_scale=run.own_scale,
        no_training="" if run.task.trains else run.task.why_untrained.partition(":")[0],
        test_split=run.task.has_test,
        trials=trials,
        posterior={trial.number: posterior[trial.widths] for trial in trials if trial.widths in posterior},
        arms=found.compared,
        finals=tuple(found.finals),
        verdict=_verdict(run, found, base["validation"] if test is None else test) if found.finals else None,
        uniform_curve=found.curve,
        chances=found.chances,
        latency=found.latency,
        measured=found.measured,
        winners=found.searched.winners,
    )


def _verdict(run: RunContext, found: Findings, unpruned: float) -> Verdict:
    told = [(limit, METRICS.card(limit.metric).told or limit.metric) for limit in run.domain.budget.limits]
    winner, *others = found.compared
    return judge(
        found.finals,
        protocols=told_protocols(run.job.verdict.protocols, run.task),
        budget_text=" and ".join(f"{limit.percent:.3g} % of {metric}" for limit, metric in told),
        scale=run.task.scale,
        identical=[arm.name for arm in others if arm.widths == winner.widths],
        unseen_data=run.task.has_test,
        unpruned=unpruned,
    )
