"""The doors to a run, for job files and for Python: the checks in their order, the lock, the threads, the engine.

Each returns a record for every budget of the job; a run alone is a family of one. Longer than others, as every way in
is here: start, go on, begin beside, read, export.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.config.engine import EngineOptions
from autoprune.config.job import Job
from autoprune.config.latency import LatencyOptions
from autoprune.config.parts import ChosenPart
from autoprune.config.stopping import StoppingOptions
from autoprune.engines import make_engine
from autoprune.engines.base import Engine
from autoprune.errors import RunError, suggest
from autoprune.evaluators.making import kind_of
from autoprune.export.architecture import read_source
from autoprune.export.inputs import describe
from autoprune.export.safetensors import ARCHITECTURE, PYTHON_MODEL
from autoprune.export.writing import DEFAULT, exporters, write_formats
from autoprune.files import shown_path
from autoprune.pipeline import run
from autoprune.pipeline.branching import check_source, place_beside
from autoprune.pipeline.changes import ANEW, IN_PLACE, told
from autoprune.pipeline.checks import check_scoring
from autoprune.pipeline.continuation import format_of, going_on
from autoprune.pipeline.extending import changes_in, check_whole, settle
from autoprune.pipeline.family import parts_of
from autoprune.pipeline.inputs import cpu_threads, how_to_resume, inputs_of_job, job_of_run, resuming
from autoprune.pipeline.overview import write_overview
from autoprune.pipeline.phases.measured_latency import by_profile, check_changeable
from autoprune.pipeline.prepare import prepare
from autoprune.pipeline.prepared import RunInputs
from autoprune.pipeline.restoring import is_whole, restored, restored_for_reading
from autoprune.progress import make_progress
from autoprune.report.pages import pages, write_reports
from autoprune.space.tracing.program import Example
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.run_files import REPAIRED, check_files, has_begun, read_run
from autoprune.verdict.record import ARMS, WINNER, RunRecord, read_record

RUNS = Path("runs")


def start_job(job: Job, path: Path, *, progress: str = "auto") -> tuple[RunRecord, ...]:
    """Start what a job file says; raises what `start` raises."""
    place = path.absolute()  # data and models may change the current folder
    RunDirectory.check_free(place)  # before data are read
    return start(inputs_of_job(job), place, progress=progress, like=path)


def resume_job(
    path: Path,
    *,
    progress: str = "auto",
    engine: EngineOptions | None = None,
    stopping: StoppingOptions | None = None,
    changes: Mapping[str, Any] | None = None,
) -> tuple[RunRecord, ...]:
    """Go on with what was started from a job file, maybe on another engine or with more; raises what `resume` raises.

    Args:
        path: of the run, or the family.
        progress: how it is shown.
        engine: in place of the job's.
        stopping: what the call says of early stopping and limits, which must be what the run began with.
        changes: dotted key -> value, in place of what its job says.
    """
    path = path.absolute()
    job = job_of_run(path, changes)
    said = {} if stopping is None else stopping.model_dump(exclude_unset=True)
    job = job.model_copy(update={"search": job.search.model_copy(update=said)}) if said else job
    given = inputs_of_job(job if engine is None else _on(job, engine))
    return resume(given, path, progress=progress, insisted=tuple(changes or ()))


def start(
    run_inputs: RunInputs, path: Path, *, progress: str = "auto", like: Path | None = None
) -> tuple[RunRecord, ...]:
    """Start a run for each budget of a job and see them through; the number of threads is as before afterwards.

    Args:
        run_inputs: what they work on.
        path: a new directory.
        progress: how they are shown.
        like: the directory as it was given, for messages.

    Raises:
        AutopruneError: the job cannot be used; then nothing has been written. Or a run failed.
    """
    given, path = like or path, path.absolute()
    job = run_inputs.job
    shown = shown_path(path, like=given)
    RunDirectory.check_free(path, resume=resuming(job, shown) if job.model.factory == PYTHON_MODEL else None)
    with ready(run_inputs, job.threads, progress) as engine:
        runs = prepare(run_inputs)
        check_scoring(runs[0])
        with RunDirectory.create(path) as directory:
            where = (
                [f"run directory {shown}; if it is stopped, `{resuming(job, shown)}` goes on"] if len(runs) == 1 else []
            )
            notes = (*where, *_without_effect(job), *how_to_resume(job))
            return run.start(job, runs, directory, engine, progress=progress, notes=notes)


def resume(
    run_inputs: RunInputs, path: Path, *, progress: str = "auto", insisted: Collection[str] = ()
) -> tuple[RunRecord, ...]:
    """Go on with the runs of a job, on as many threads as they began with: sums in another order round differently.

    Where the job has more than they were begun with (see `changes.IN_PLACE`), also runs that have ended go on. Where it
    has another budget (see `changes.ANEW`), a new run is begun beside them, with their base network and scores.

    Args:
        run_inputs: what they work on.
        path: of the run, or the family.
        progress: how it is shown.
        insisted: keys that the caller named; one of the search makes a search that ended early go on.

    Raises:
        RunError: there is no such run, another process works on it, or it was started with something else.
    """
    path = path.absolute()
    with RunDirectory.reopen(path) as directory:
        restored(directory, lambda line: None, edited=True)
        settle(directory)
        ended = all(map(is_whole, parts_of(path) or (path,)))
        kept, notes = going_on(run_inputs, path, ended=ended)
        changed = changes_in(kept.job, directory, job_format=format_of(path), insisted=insisted)
        check_whole(path, changed)
        apart = not set(changed) <= set(IN_PLACE) and set(changed) <= {*IN_PLACE, *ANEW}
        threads = directory.recorded("threads")
        if not apart:
            if ended and changed:
                kept, notes = going_on(run_inputs, path)
            if changed and set(changed) <= set(IN_PLACE):
                check_changeable(kept.job, changed)
                notes = (*notes, f"goes on with {told(changed)}")
            notes = (*read_run(path).get(REPAIRED, ()), *notes)
            with ready(kept, threads, progress, read_only=ended and not changed) as engine:
                return run.resume(
                    kept.job, prepare(kept), directory, engine, progress=progress, notes=notes, insisted=insisted
                )
    return _beside(kept, path, threads, progress, budget="constraints" in changed)


def _beside(run_inputs: RunInputs, path: Path, threads: int, progress: str, *, budget: bool) -> tuple[RunRecord, ...]:
    """A new run beside the one in `path`, on its base network and scores; the one that was begun so before goes on."""
    job = run_inputs.job
    place = place_beside(path, job, budget=budget)
    if has_begun(place):
        return resume(run_inputs, place, progress=progress)
    with ready(run_inputs, threads, progress) as engine:
        runs = prepare(run_inputs)
        check_source(runs[0], path)
        with RunDirectory.create(place) as directory:
            note = (
                f"run directory {place}, begun with base network and scores of {path}; `{resuming(job, place)}` goes "
                f"on with it"
            )
            return run.start(job, runs, directory, engine, progress=progress, notes=(note,), source=path)


def engine_of(run_inputs: RunInputs) -> Engine:
    """The engine of a job, not open yet.

    Raises:
        ConfigError: what it needs is not installed, or its options contradict each other or the device.
    """
    job = run_inputs.job
    return make_engine(job.engine, stopping=job.search.stopping, device=run_inputs.task.device.type)


@contextmanager
def ready(run_inputs: RunInputs, threads: int | None, progress: str, *, read_only: bool = False) -> Iterator[Engine]:
    """The threads are set and the engine is open, before anything is traced, shown or written.

    Args:
        run_inputs: have the engine.
        threads: of the run; None changes nothing.
        progress: how it is shown.
        read_only: all runs have ended, so that nothing is evaluated: any engine will do.
    """
    make_progress(progress).close()  # refuses an unknown one
    with cpu_threads(threads), make_engine(EngineOptions()) if read_only else engine_of(run_inputs) as engine:
        yield engine


def _without_effect(job: Job) -> tuple[str, ...]:
    """Told of what is asked for and changes nothing: early stopping of what does not train, other latencies."""
    name, chosen, notes = job.search.early_stopping, job.search.evaluator, list[str]()
    if name != "none" and kind_of(chosen.name, chosen.settings) != "training":
        notes.append(f"early_stopping: {name} stops nothing here: the evaluator {chosen.name!r} does not train")
    if job.verdict.latency != LatencyOptions() and by_profile(job):
        notes.append(
            "verdict: latency changes nothing here: latency_ms is limited, and networks are measured under the "
            "conditions of its device profile"
        )
    return tuple(notes)


def _on(job: Job, engine: EngineOptions) -> Job:
    return job.model_copy(update={"engine": engine})


def records_of(path: Path) -> tuple[RunRecord, ...]:
    """Read a finished run, or those of a finished family.

    Raises:
        RunError: one has not ended, or is damaged.
    """
    return tuple(map(read_record, parts_of(path) or (path,)))


def write_all_reports(path: Path, *, note: Callable[[str], None] = lambda line: None) -> tuple[RunRecord, ...]:
    """Write the reports of a finished run or family anew; raises what `records_of` raises.

    Args:
        path: of the run, or the family.
        note: told what was damaged and put back.
    """
    for place in (path, *parts_of(path)):
        restored_for_reading(place, note)
    records = records_of(path)
    for record in records:
        write_reports(record)
        _listed(record.directory, pages(record))
    if parts_of(path):
        _listed(path, [write_overview(records, path, budgets=len(records))])
    return records


def folder_of(arm: str) -> str:
    """The folder of a run, from its directory, in which a network compared is exported."""
    return "export" if arm == WINNER else f"{ARMS}/{arm}"


def exported_arm(record: RunRecord, arm: str) -> Path:
    """The folder in which a finished run has exported one of the networks compared.

    Raises:
        RunError: it has no arm of this name, or did not keep its weights.
    """
    names = [one.name for one in record.arms]
    if arm not in names:
        raise RunError(f"{record.directory} has no arm {arm!r}; it has {', '.join(names)}.{suggest(arm, names)}")
    folder = record.directory / folder_of(arm)
    if not (folder / ARCHITECTURE).is_file():
        raise RunError(
            f"{record.directory} did not keep the weights of {arm}: a version of autoprune trained it that kept the "
            f"winner's only; run the job anew, or export the winner"
        )
    return folder


def _listed(path: Path, written: Sequence[Path]) -> None:
    """Take checksums of pages that were written anew; another process that works on the run takes its own."""
    with suppress(RunError), RunDirectory.reopen(path) as directory:
        directory.list_files(written)


def export_run(
    directory: Path,
    folder: Path,
    formats: Sequence[ChosenPart] = DEFAULT,
    *,
    arm: str = WINNER,
    model: nn.Module | None = None,
    example: Example | None = None,
    packages: Sequence[str] = (),
    trust: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write a network of a finished run to a folder, all formats or nothing.

    Args:
        directory: of the run.
        folder: new or empty.
        formats: names of exporters, or with settings.
        arm: the winner, or one of those that it was compared with.
        model: the full network, for a run that was given a model object; only read.
        example: what the network is called with; None: what it was traced with.
        packages: whose functions may build the network, besides those that `autoprune.load` knows.
        trust: whatever the run names may build it.
        note: told what is in each format.

    Raises:
        RunError: the run has not ended, is damaged or has no such arm, or the folder holds something else already.
        ExportError: a format cannot be written.
    """
    made = exporters(formats)
    family = parts_of(directory)
    if family:
        names = ", ".join(str(part) for part in family)
        raise RunError(f"{directory} holds a run for each of {len(family)} budgets; export one of them: {names}")
    restored_for_reading(directory, note)
    record = read_record(directory)
    again = f"`autoprune resume {shlex.quote(str(directory))}` makes it again, or restore it"
    check_files(directory, (f"{folder_of(arm)}/",), again)
    exported = exported_arm(record, arm)

    def traced_with() -> Example:
        return inputs_of_job(job_of_run(directory)).example

    source = read_source(exported, model=model, example=traced_with, packages=packages, trust=trust)
    if example is not None:
        source = replace(source, describe=partial(describe, example))
    return write_formats(source, made, folder, note=note)
