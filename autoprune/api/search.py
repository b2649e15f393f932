"""The Python front door: `search`, `sweep`, `resume`, what they return, and `trace`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from autoprune.api.arguments import SearchArguments, called_with
from autoprune.api.result import SearchResult
from autoprune.api.space import Space, trace
from autoprune.config.engine import EngineOptions
from autoprune.config.stopping import StoppingOptions, moved_to_search
from autoprune.config.validation import validated
from autoprune.deprecation import warn_moved
from autoprune.errors import ConfigError
from autoprune.files import free_directory
from autoprune.pipeline import driver
from autoprune.pipeline.finishing import finish_job
from autoprune.pipeline.inputs import job_of_run
from autoprune.progress.base import Mode
from autoprune.randomness import untouched
from autoprune.signals import ended_by_signals

__all__ = ["SearchArguments", "SearchResult", "Space", "finish", "resume", "search", "sweep", "trace"]


@called_with(SearchArguments)
def search(arguments: SearchArguments) -> SearchResult:
    """Search the widths of a model under a budget and compare the winner with uniform pruning.

    Returns:
        What the search found.

    Raises:
        AutopruneError: one clear message; nothing is written before the job is known to be usable.
    """
    limits = arguments.constraints
    if isinstance(limits, Mapping) and any(isinstance(given, list | tuple) for given in limits.values()):
        warn_moved("autoprune.search with lists of limits", "autoprune.sweep", level=4)
        return cast("SearchResult", _carry_out(arguments))
    return _carry_out(arguments)[0]


@called_with(SearchArguments)
def sweep(arguments: SearchArguments) -> tuple[SearchResult, ...]:
    """Search under each of several budgets; the searches share the trace, the base network and every score.

    Returns:
        What the searches found, one for each budget in their order; also of a single budget.

    Raises:
        AutopruneError: one clear message; nothing is written before the job is known to be usable.
    """
    return _carry_out(arguments)


@ended_by_signals
@untouched()
def _carry_out(arguments: SearchArguments) -> tuple[SearchResult, ...]:
    home = Path.cwd()  # what is called may change it
    path = home / arguments.run_dir if arguments.run_dir is not None else None
    if arguments.resume and path is None:
        raise ConfigError("resume=True needs run_dir, the directory of the run to go on with")
    run_inputs = arguments.run_inputs()
    work = driver.resume if arguments.resume else driver.start
    records = work(
        run_inputs, path or free_directory(home / driver.RUNS, run_inputs.job.name), progress=arguments.progress
    )
    return tuple(SearchResult(record, arguments.model) for record in records)


@ended_by_signals
@untouched()
def resume(
    run_dir: Path | str,
    *,
    progress: Mode = "auto",
    engine: str | Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> SearchResult:
    """Go on with a run that was started from a job file; for a run started by `search`, call it with `resume=True`.

    Args:
        run_dir: of the run.
        progress: "auto", "rich", "plain" or "silent".
        engine: another one than it began on, as for `search`.
        changes: keys of its job by their path, such as `{"search.trials": 200}`: with more trials, verdict seeds or
            epochs the run itself goes on, also one that has ended; with other constraints a run beside it begins, on
            its base network and scores.

    Raises:
        RunError: there is no such run, or what it was started with has changed.
    """
    where, stopping = moved_to_search(engine, None)
    options = None if engine is None else validated(EngineOptions, where, "engine")
    asked = validated(StoppingOptions, stopping or {}, "engine")
    budgets = len(job_of_run(Path(run_dir), changes).family)
    if budgets > 1:
        raise ConfigError(
            f"constraints with lists of limits make a family of {budgets} searches, not one run: `autoprune resume` "
            f"goes on with it, or autoprune.sweep(…, resume=True) if it was started from Python"
        )
    records = driver.resume_job(Path(run_dir), progress=progress, engine=options, stopping=asked, changes=changes)
    return SearchResult(records[0], None)


@ended_by_signals
@untouched()
def finish(run_dir: Path | str, *, progress: Mode = "auto") -> tuple[SearchResult, ...]:
    """End the search of a run with the trials so far; verdict, report and export are of what there is.

    A run that is at work, in another process or thread, concludes by itself once the evaluations that run now have
    ended; so does one that was started by `search` at the next call with `resume=True`. Then nothing is returned.

    Args:
        run_dir: of a run, or of a family of budgets.
        progress: "auto", "rich", "plain" or "silent".

    Returns:
        What the search found, for each budget.

    Raises:
        RunError: there is no such run, or what it was started with has changed.
    """
    return tuple(SearchResult(record, None) for record in finish_job(Path(run_dir), progress=progress))
