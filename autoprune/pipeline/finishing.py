"""The door to a run that is to end with what there is; see also `driver`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autoprune.config.engine import EngineOptions
from autoprune.errors import BusyRunError
from autoprune.export.architecture import PYTHON_MODEL
from autoprune.pipeline.changes import job_at
from autoprune.pipeline.driver import records_of, resume_job
from autoprune.pipeline.family import parts_of
from autoprune.pipeline.restoring import is_whole
from autoprune.trials.finishing import ask_to_finish
from autoprune.trials.run_directory import RunDirectory, check_begun, check_search
from autoprune.trials.run_files import has_begun, is_there
from autoprune.verdict.record import RunRecord


def finish_job(
    path: Path,
    *,
    progress: str = "auto",
    engine: EngineOptions | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> tuple[RunRecord, ...]:
    """End the search of a run with the trials so far, stopped or at work; then verdict, report and export.

    Args:
        path: of the run, or the family; one that has ended is only read.
        progress: how it is shown.
        engine: in place of the job's.
        note: told who sees it through, where that is not this call.

    Returns:
        The records; none where another process works on the run, or only the Python code can that began it.

    Raises:
        RunError: there is no such run, or as for `resume`.
    """
    path = path.absolute()
    check_begun(path)
    check_search(path)
    places = parts_of(path) or (path,)
    if all(map(is_whole, places)):
        return records_of(path)
    if not all(has_begun(place) and is_there(place, "result.json") for place in places):
        ask_to_finish(path)
    try:
        with RunDirectory.reopen(path):
            pass
    except BusyRunError:
        note(f"{path} is at work: its search ends after the evaluations that run now, and it concludes by itself")
        return ()
    if job_at(path).model.factory == PYTHON_MODEL:
        note(
            f"{path} was started from Python with a model object: its search is over, and the same call with "
            f"run_dir={str(path)!r}, resume=True concludes it"
        )
        return ()
    return resume_job(path, progress=progress, engine=engine)
