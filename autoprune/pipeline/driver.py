"""A run from start to end: the checks in their order, the lock, the threads, then the phases."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import replace
from pathlib import Path

from autoprune.config import Job
from autoprune.engine_options import EngineOptions
from autoprune.errors import RunError
from autoprune.pipeline import phases, sweep
from autoprune.pipeline.continuation import going_on
from autoprune.pipeline.ingredients import cpu_threads, how_to_resume, ingredients_of, job_of_run
from autoprune.pipeline.overview import write_overview
from autoprune.pipeline.prepare import Ingredients, check_scoring, prepare
from autoprune.report.pages import write_reports
from autoprune.search.engines import make_engine
from autoprune.search.engines.base import Engine
from autoprune.search.progress import make_progress
from autoprune.search.run_directory import RunDirectory, free_directory
from autoprune.verdict.record import RunRecord, read_record

RUNS = Path("runs")


def run_job(job: Job, path: Path, *, progress: str = "auto") -> RunRecord:
    """Start a run from a job file; raises what `run` raises."""
    RunDirectory.check_free(path)  # before data are read
    return run(ingredients_of(job), path, progress=progress)


def resume_job(path: Path, *, progress: str = "auto", engine: EngineOptions | None = None) -> RunRecord:
    """Go on with a run that was started from a job file, maybe on another engine; raises what `resume` raises."""
    return resume(ingredients_of(_on_engine(job_of_run(path), engine)), path, progress=progress)


def run_all(job: Job, path: Path, *, progress: str = "auto") -> tuple[RunRecord, ...]:
    """Start what a job file says, a run or a family of them; raises what `run` raises."""
    RunDirectory.check_free(path)
    if len(job.family) == 1:
        return (run_job(job, path, progress=progress),)
    return start_family(ingredients_of(job), path, progress=progress)


def resume_all(path: Path, *, progress: str = "auto", engine: EngineOptions | None = None) -> tuple[RunRecord, ...]:
    """Go on with a run or a family that was started from a job file; raises what `resume` raises."""
    job = _on_engine(job_of_run(path), engine)
    if len(job.family) == 1:
        return (resume_job(path, progress=progress, engine=engine),)
    return resume_family(ingredients_of(job), path, progress=progress)


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


def run(ingredients: Ingredients, path: Path | None, *, progress: str = "auto") -> RunRecord:
    """Start a run and see it through; the number of threads is as before afterwards.

    Args:
        ingredients: what it works on.
        path: the run directory; None: a free one below `runs/`.
        progress: how it is shown.

    Raises:
        AutopruneError: the job cannot be used; then nothing has been written. Or the run failed.
    """
    chosen = path or free_directory(RUNS, ingredients.job.name)
    RunDirectory.check_free(chosen)
    with (
        cpu_threads(ingredients.job.threads),
        engine_of(ingredients) as engine,  # before anything is shown, written or traced
        make_progress(progress) as shown,
    ):
        prepared = prepare(ingredients)
        check_scoring(prepared)
        with RunDirectory.create(chosen) as directory:
            command = f"autoprune resume {shlex.quote(str(chosen))}"
            shown.note(f"run directory {chosen}; if it is stopped, `{command}` goes on")
            for line in how_to_resume(ingredients.job):
                shown.note(line)
            return phases.start(prepared, directory, shown, engine)


def resume(ingredients: Ingredients, path: Path, *, progress: str = "auto") -> RunRecord:
    """Go on with a run, on as many threads as it began with: sums in another order round differently.

    Raises:
        RunError: there is no such run, another process works on it, or it was started with something else.
    """
    with RunDirectory.reopen(path) as directory, cpu_threads(directory.recorded("threads")):
        ingredients, notes = _on_with(ingredients, path)
        with engine_of(ingredients) as engine, make_progress(progress) as shown:
            for line in notes:
                shown.note(line)
            return phases.resume(prepare(ingredients), directory, shown, engine)


def start_family(ingredients: Ingredients, path: Path, *, progress: str = "auto") -> tuple[RunRecord, ...]:
    """Start a run for each budget of a job; raises what `sweep.start` raises."""
    RunDirectory.check_free(path)
    with engine_of(ingredients) as engine:
        return sweep.start(ingredients, path, engine, progress=progress)


def resume_family(ingredients: Ingredients, path: Path, *, progress: str = "auto") -> tuple[RunRecord, ...]:
    """Go on with the runs of a family; raises what `sweep.resume` raises."""
    ingredients, notes = _on_with(ingredients, path)
    with engine_of(ingredients) as engine:
        return sweep.resume(ingredients, path, engine, progress=progress, notes=notes)


def engine_of(ingredients: Ingredients) -> Engine:
    """The engine of a job, not open yet.

    Raises:
        ConfigError: what it needs is not installed, or its options contradict each other or the device.
    """
    return make_engine(ingredients.job.engine, device=ingredients.task.device.type)


def _on_with(ingredients: Ingredients, path: Path) -> tuple[Ingredients, tuple[str, ...]]:
    """What the run in `path` goes on with, and what to tell; on the local engine if it has ended and is only read."""
    if not (path / "run.json").is_file():
        return ingredients, ()  # opening it says what is wrong
    if all((place / "result.json").is_file() for place in sweep.parts_of(path) or (path,)):
        return replace(ingredients, job=_on_engine(ingredients.job, EngineOptions())), ()
    return going_on(ingredients, path)


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
