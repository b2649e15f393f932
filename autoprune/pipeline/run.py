"""The map of a run: how one begins or goes on, its phases in their order, and the family that it may be one of.

A run alone is a family of one that lies in the family's own directory. A family of several budgets holds a run
directory for each, complete as any other; `scores.log` with every score; and `overview.md`, written anew after each
run. They share the trace, the base network, every score, and what a controller learns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

from autoprune.allocation import UNIFORM
from autoprune.config.job import Job
from autoprune.engines.base import Engine
from autoprune.errors import RunError
from autoprune.evaluators.making import counted, is_relative, kind_of
from autoprune.pipeline.beginning import begin, begin_family
from autoprune.pipeline.branching import take_over
from autoprune.pipeline.changes import ANEW, IN_PLACE
from autoprune.pipeline.continuation import format_of
from autoprune.pipeline.extending import follow, follow_whole
from autoprune.pipeline.family import Family, ScoreCache, opened, parts_of
from autoprune.pipeline.fingerprints import same_job
from autoprune.pipeline.inputs import resuming
from autoprune.pipeline.overview import write_overview
from autoprune.pipeline.phases.base_network import base_network
from autoprune.pipeline.phases.conclusion import Findings, conclude
from autoprune.pipeline.phases.context import RunContext
from autoprune.pipeline.phases.finals import final_trainings
from autoprune.pipeline.phases.flops_search import by_flops, search_by_flops, shared_by_both, with_flops_search
from autoprune.pipeline.phases.full_scores import score_fully
from autoprune.pipeline.phases.measured_latency import measure_latency
from autoprune.pipeline.phases.measured_winner import measure_compared, measured_winner
from autoprune.pipeline.phases.rescoring import rescore
from autoprune.pipeline.phases.search import search
from autoprune.pipeline.phases.sparsity import sparsity_arms, sparsity_trainings, with_starts
from autoprune.pipeline.phases.timing import Timed
from autoprune.pipeline.phases.uniform_curve import uniform_curve
from autoprune.pipeline.prepared import Prepared
from autoprune.pipeline.provenance import changes
from autoprune.pipeline.restoring import lost_entries, made_whole
from autoprune.pipeline.run_engine import RunEngine
from autoprune.pipeline.told import run_ended, run_started
from autoprune.progress import make_progress
from autoprune.progress.base import Progress
from autoprune.progress.callback_list import CallbackList
from autoprune.trials.finishing import forget_to_finish
from autoprune.trials.ledger import open_storage
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.selection import probability_better, shortlist, smooth, sure_leads
from autoprune.verdict.baselines import arms
from autoprune.verdict.record import RunRecord, read_record

_MAY = f"What may differ: {', '.join(IN_PLACE)}; and for a run beside it {', '.join(ANEW)}"


def start(
    job: Job,
    runs: Sequence[Prepared],
    directory: RunDirectory,
    engine: Engine,
    *,
    progress: str = "auto",
    notes: Sequence[str] = (),
    source: Path | None = None,
) -> tuple[RunRecord, ...]:
    """Begin all runs of a job in a new directory and see them through.

    Args:
        job: what was asked for.
        runs: one for each of its budgets.
        directory: new.
        engine: open.
        progress: how they are shown.
        notes: shown first.
        source: of the run on whose base network and scores they begin; None: on nothing.
    """
    if len(runs) > 1:
        begin_family(job, directory, source)
    return _each(job, runs, directory, engine, progress, notes, source=source)


def resume(
    job: Job,
    runs: Sequence[Prepared],
    directory: RunDirectory,
    engine: Engine,
    *,
    progress: str = "auto",
    notes: Sequence[str] = (),
    insisted: Collection[str] = (),
) -> tuple[RunRecord, ...]:
    """Go on with all runs of a job as if they had not been stopped; those that have ended are only read.

    Where the job has more than a run was begun with, such as more trials, also one that has ended goes on.

    Args: as for `start`, with the directory of the run, or of the family.
        insisted: keys that the caller named; one of the search makes a search that ended early go on.

    Raises:
        RunError: a run was started with something else; says what differs.
    """
    if len(runs) > 1:
        follow_whole(job, runs, directory, insisted=insisted)
    recorded, job_format = directory.recorded("fingerprints"), format_of(directory.path)
    if len(runs) > 1 and not same_job(recorded.get("job"), job, job_format=job_format):
        raise RunError(
            f"{directory.path} cannot be resumed: its job.yaml is not that of the start{changes(directory, job)}; "
            f"restore it, or start a new family. {_MAY}"
        )
    return _each(job, runs, directory, engine, progress, notes, insisted)


def _each(
    job: Job,
    runs: Sequence[Prepared],
    directory: RunDirectory,
    engine: Engine,
    progress: str,
    notes: Sequence[str],
    insisted: Collection[str] = (),
    source: Path | None = None,
) -> tuple[RunRecord, ...]:
    """One run after the other, each on what those before it have left."""
    if len(runs) == 1:
        with make_progress(progress) as shown:
            _tell(shown, notes)
            return (see_through(runs[0], directory, shown, engine, insisted=insisted, source=source),)
    places, records = parts_of(directory.path), list[RunRecord]()
    family = take_over(runs[0], directory) or Family(places[0], ScoreCache.of(directory, job.search.storage))
    for number, (prepared, place) in enumerate(zip(runs, places, strict=True), start=1):
        with make_progress(progress) as shown:
            _tell(shown, notes if number == 1 else ())
            shown.note(
                f"budget {number} of {len(places)}: {prepared.domain.budget}; if it is stopped, "
                f"`{resuming(job, directory.path)}` goes on"
            )
            with opened(place) as run:
                records.append(see_through(prepared, run, shown, engine, family, insisted=insisted))
        family = family.after(place)
        directory.list_files([write_overview(records, directory.path, budgets=len(places))])
    forget_to_finish(directory.path)
    return tuple(records)


def see_through(
    prepared: Prepared,
    directory: RunDirectory,
    progress: Progress,
    engine: Engine,
    family: Family | None = None,
    *,
    insisted: Collection[str] = (),
    source: Path | None = None,
) -> RunRecord:
    """One run from wherever it stands to its end, maybe on another engine than before; one that has ended is only read.

    Args:
        prepared: what it works on.
        directory: of the run, new or not.
        progress: shows it.
        engine: open.
        family: what is shared with runs before and after.
        insisted: see `resume`.
        source: see `start`.

    Raises:
        RunError: the run was begun with other model code, weights, space, data or job; says what differs.
    """
    directory.note = progress.note
    resumed = (directory / "run.json").is_file()
    if resumed:
        follow(prepared, directory, insisted=insisted)
    else:
        begin(prepared, directory, family, source)
    _check_same(prepared, directory)
    if resumed and not made_whole(prepared, directory):
        return read_record(directory.path)
    given = prepared.run_inputs
    narrowed, storage = by_flops(prepared), given.job.search.storage
    family = family or take_over(prepared, directory)
    if narrowed is not None and family is None:
        family = shared_by_both(directory, storage)
    at_work = RunEngine(engine, prepared, directory, progress)
    ledger = open_storage(storage, directory / "journal.log", note=progress.note)
    for line in lost_entries(directory.path):
        progress.note(line)
    with CallbackList(given.job.callbacks, given.callbacks, note=progress.note) as told:
        run = RunContext(prepared, directory, progress, at_work, ledger, family, told)
        told.run_started(run_started(directory, run.search_scale, resumed=resumed))
        record = _phases(run, narrowed, partial(see_through, insisted=insisted))
        forget_to_finish(directory.path)
        told.run_ended(run_ended(record))
    return record


def _phases(run: RunContext, narrowed: Prepared | None, see_through: Callable[..., RunRecord]) -> RunRecord:
    """All phases in their order; where latency is limited, `narrowed` is the same search under FLOPs."""
    timed = Timed(run)
    base = timed.guard(timed("base network", lambda: base_network(run)))
    scores = run.prepared.scores(base)
    timed.check("the criterion")
    factory = run.prepared.factory(base, scores)
    run.engine.equip(factory)
    sparse = timed("sparsity trainings", lambda: sparsity_trainings(run)) if run.job.sparsity.methods else []
    if any(one.start for one in sparse):
        factory = with_starts(factory, run, sparse)
        run.engine.equip(factory)

    found = [(one.label, one.widths) for one in sparse]
    searched = timed("search", lambda: search(run, base, scores, found))
    trials = searched.trials
    judge = counted(run.job.search.evaluator.name, run.job.search.evaluator.settings)
    trains = kind_of(judge.name, judge.settings) == "training"
    apart = factory.finals_inherit_otherwise and not trains
    rescored = timed("re-scoring", lambda: rescore(run, trials, [one.widths for one in sparse]))
    curve = timed("uniform curve", lambda: uniform_curve(run))
    beside = None
    if narrowed is not None:
        beside = timed("search by FLOPs", lambda: search_by_flops(run, narrowed, see_through))
        run.engine.equip(factory)  # that search had the engine

    uniform = {trial.widths for trial in trials if trial.origin in UNIFORM}
    leads = sure_leads(run.domain, trials, uniform, rescored, apart=apart)
    ranked = shortlist({widths: leads[widths] for widths in rescored}, len(rescored), run.domain, uniform)
    winner = measured_winner(run, ranked, factory)
    if winner not in rescored:  # made to keep the latency limit, once candidates were measured
        rescored |= score_fully(run, [winner], phase="measured winner", seed=3_000_003)
    posterior = smooth(run.domain, trials, rescored, apart=apart)

    compared = (*arms(run.domain, trials, winner, rescored), *sparsity_arms(run, sparse, rescored))
    chosen = run.job.search.evaluator
    compared = with_flops_search(compared, beside, run.domain, relative=is_relative(chosen.name, chosen.settings))
    latency = measure_compared(run, {arm.name: arm.widths for arm in compared}, factory)
    finals = timed("final trainings", lambda: final_trainings(run, compared))
    measured = None
    if latency is None and run.job.verdict.latency is not None:
        measured = timed("latency", lambda: measure_latency(run, compared, factory))
    uniforms = {arm.name: arm.widths for arm in compared if arm.name in UNIFORM}
    chances = probability_better(run.domain, trials, rescored, winner, uniforms, apart=apart)
    findings = Findings(searched, posterior, compared, finals, curve, chances, latency, measured, rescored)
    return conclude(run, factory, findings)


def _check_same(prepared: Prepared, directory: RunDirectory) -> None:
    differing = prepared.differing(directory.recorded("fingerprints"), job_format=format_of(directory.path))
    if differing:
        what = changes(directory, prepared.run_inputs.job) if "job" in differing else ""
        raise RunError(
            f"{directory.path} cannot be resumed: {', '.join(differing)} of the run and of this call differ{what}; "
            f"restore what the run was started with, or start a new run{f'. {_MAY}' if what else ''}"
        )


def _tell(shown: Progress, notes: Sequence[str]) -> None:
    for line in notes:
        shown.note(line)
