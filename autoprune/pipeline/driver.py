"""A run from start to end: the checks in their order, the lock, the threads, then the phases."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import replace
from pathlib import Path

from autoprune.config.engine import EngineOptions
from autoprune.config.job import Job
from autoprune.engines import make_engine
from autoprune.engines.base import Engine
from autoprune.errors import RunError
from autoprune.files import free_directory
from autoprune.pipeline import phases, sweep
from autoprune.pipeline.continuation import going_on
from autoprune.pipeline.inputs import cpu_threads, how_to_resume, inputs_of_job, job_of_run
from autoprune.pipeline.overview import write_overview
from autoprune.pipeline.prepare import RunInputs, check_scoring, prepare
from autoprune.progress import make_progress
from autoprune.report.pages import write_reports
from autoprune.trials.run_directory import RunDirectory
from autoprune.verdict.record import RunRecord, read_record

RUNS = Path("runs")


def run_job(job: Job, path: Path, *, progress: str = "auto") -> RunRecord:
    """Start a run from a job file; raises what `run` raises."""
    RunDirectory.check_free(path)  # before data are read
    return run(inputs_of_job(job), path, progress=progress)


def resume_job(path: Path, *, progress: str = "auto", engine: EngineOptions | None = None) -> RunRecord:
    """Go on with a run that was started from a job file, maybe on another engine; raises what `resume` raises."""
    return resume(inputs_of_job(_on_engine(job_of_run(path), engine)), path, progress=progress)


def run_all(job: Job, path: Path, *, progress: str = "auto") -> tuple[RunRecord, ...]:
    """Start what a job file says, a run or a family of them; raises what `run` raises."""
    RunDirectory.check_free(path)
    if len(job.family) == 1:
        return (run_job(job, path, progress=progress),)
    return start_family(inputs_of_job(job), path, progress=progress)


def resume_all(path: Path, *, progress: str = "auto", engine: EngineOptions | None = None) -> tuple[RunRecord, ...]:
    """Go on with a run or a family that was started from a job file; raises what `resume` raises."""
    job = _on_engine(job_of_run(path), engine)
    if len(job.family) == 1:
        return (resume_job(path, progress=progress, engine=engine),)
    return resume_family(inputs_of_job(job), path, progress=progress)


def records_of(path: Path) -> tuple[RunRecord, ...]:
    """Read a finished run, or those of a finished family.

    Raises:
        RunError: one has not ended, or is damaged.
    """
    family = sweep.parts_of(path)
    return tuple(map(read_record, family)) if family else (read_record(path),)


def write_all_reports(path: Path) -> tuple[RunRecord, ...]:
    """Write the reports of a finished run or family anew; raises what `records_of` raises."""
    records = records_of(path)
    for record in records:
        write_reports(record)
    if sweep.parts_of(path):
        write_overview(records, path, budgets=len(records))
    return records


def run(run_inputs: RunInputs, path: Path | None, *, progress: str = "auto") -> RunRecord:
    """Start a run and see it through; the number of threads is as before afterwards.

    Args:
        run_inputs: what it works on.
        path: the run directory; None: a free one below `runs/`.
        progress: how it is shown.

    Raises:
        AutopruneError: the job cannot be used; then nothing has been written. Or the run failed.
    """
    chosen = path or free_directory(RUNS, run_inputs.job.name)
    RunDirectory.check_free(chosen)
    with (
        cpu_threads(run_inputs.job.threads),
        engine_of(run_inputs) as engine,  # before anything is shown, written or traced
        make_progress(progress) as shown,
    ):
        prepared = prepare(run_inputs)
        check_scoring(prepared)
        with RunDirectory.create(chosen) as directory:
            command = f"autoprune resume {shlex.quote(str(chosen))}"
            shown.note(f"run directory {chosen}; if it is stopped, `{command}` goes on")
            for line in how_to_resume(run_inputs.job):
                shown.note(line)
            return phases.start(prepared, directory, shown, engine)


def resume(run_inputs: RunInputs, path: Path, *, progress: str = "auto") -> RunRecord:
    """Go on with a run, on as many threads as it began with: sums in another order round differently.

    Raises:
        RunError: there is no such run, another process works on it, or it was started with something else.
    """
    with RunDirectory.reopen(path) as directory, cpu_threads(directory.recorded("threads")):
        run_inputs, notes = _on_with(run_inputs, path)
        with engine_of(run_inputs) as engine, make_progress(progress) as shown:
            for line in notes:
                shown.note(line)
            return phases.resume(prepare(run_inputs), directory, shown, engine)


def start_family(run_inputs: RunInputs, path: Path, *, progress: str = "auto") -> tuple[RunRecord, ...]:
    """Start a run for each budget of a job; raises what `sweep.start` raises."""
    RunDirectory.check_free(path)
    with engine_of(run_inputs) as engine:
        return sweep.start(run_inputs, path, engine, progress=progress)


def resume_family(run_inputs: RunInputs, path: Path, *, progress: str = "auto") -> tuple[RunRecord, ...]:
    """Go on with the runs of a family; raises what `sweep.resume` raises."""
    run_inputs, notes = _on_with(run_inputs, path)
    with engine_of(run_inputs) as engine:
        return sweep.resume(run_inputs, path, engine, progress=progress, notes=notes)


def engine_of(run_inputs: RunInputs) -> Engine:
    """The engine of a job, not open yet.

    Raises:
        ConfigError: what it needs is not installed, or its options contradict each other or the device.
    """
    return make_engine(run_inputs.job.engine, device=run_inputs.task.device.type)


def _on_with(run_inputs: RunInputs, path: Path) -> tuple[RunInputs, tuple[str, ...]]:
    """What the run in `path` goes on with, and what to tell; on the local engine if it has ended and is only read."""
    if not (path / "run.json").is_file():
        return run_inputs, ()  # opening it says what is wrong
    if all((place / "result.json").is_file() for place in sweep.parts_of(path) or (path,)):
        return replace(run_inputs, job=_on_engine(run_inputs.job, EngineOptions())), ()
    return going_on(run_inputs, path)


def _on_engine(job: Job, engine: EngineOptions | None) -> Job:
    return job if engine is None else job.model_copy(update={"engine": engine})


def export_run(directory: Path, folder: Path) -> Path:
    """Copy a finished run's network to a folder.

    Raises:
        RunError: the run has not ended, or the folder holds something else already.
    """
    family = sweep.parts_of(directory)
    if family:
        names = ", ".join(str(part) for part in family)
        raise RunError(f"{directory} holds a run for each of {len(family)} budgets; export one of them: {names}")
    read_record(directory)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} is not empty; give a new folder")
    try:
        shutil.copytree(directory / "export", folder, dirs_exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror or error}; give another folder") from error
    return folder
