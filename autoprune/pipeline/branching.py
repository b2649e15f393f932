"""A new run on the base network and the scores of one that is there: another budget, another controller.

The run that it begins with stays as it is. Everything is copied when the new one begins, so that it stands alone.
"""

from __future__ import annotations

import glob
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autoprune.config.job import Job
from autoprune.controllers.base import TrialState
from autoprune.errors import RunError
from autoprune.evaluators.making import is_relative
from autoprune.files import content_of, free_directory
from autoprune.pipeline.changes import BRANCHED
from autoprune.pipeline.continuation import format_of
from autoprune.pipeline.family import BASE, Family, ScoreCache, opened, parts_of, slug
from autoprune.pipeline.fingerprints import same_job
from autoprune.pipeline.prepared import Prepared
from autoprune.space.groups import SearchSpace, Widths
from autoprune.tasks.score import Score
from autoprune.trials.assignment import score_of
from autoprune.trials.ledger import Ledger, Notebook, has_study, open_storage
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.run_files import check_files, has_begun, read_run

FULL_SCORES = ("re-scoring", "uniform curve", "measured winner", "allocation tables")
"""Notebooks of a run with scores on all validation data."""

_MAY_DIFFER = ("job", "device profile")


def place_beside(path: Path, job: Job, *, budget: bool) -> Path:
    """Where the new run lies: the directory of the one that began so before, else a free one beside the old run.

    Args:
        path: of the run that it begins with.
        job: of the new run.
        budget: the budget is another one, which its directory is named after.
    """
    known = read_run(path).get("id")
    for place in sorted(path.parent.glob(f"{glob.escape(path.name)}-*")):
        if not has_begun(place):
            continue
        entries = read_run(place)
        same = same_job(entries.get("fingerprints", {}).get("job"), job, job_format=format_of(place))
        if same and entries.get(BRANCHED, {}).get("id") == known:
            return place
    named = "-".join(dict.fromkeys(map(slug, job.family))) if budget else "anew"
    return free_directory(path.parent, f"{path.name}-{named}"[:200])


def begun_from(path: Path) -> dict[str, Any]:
    """For `run.json`: what the new run begins with, given the directory of the old one."""
    return {"run": path.name, "id": read_run(path).get("id"), "path": str(path.absolute())}


def check_source(prepared: Prepared, path: Path) -> None:
    """Refuse to begin with a run of something else, or without a base network.

    Args:
        prepared: the new run.
        path: of the old run, or the family.

    Raises:
        RunError: says what differs.
    """
    base = first_of(path)
    recorded: Mapping[str, str] = read_run(base).get("fingerprints", {})
    differing = [name for name in prepared.differing(recorded) if name not in _MAY_DIFFER]
    if differing:
        raise RunError(
            f"{path} cannot be resumed: {', '.join(differing)} of the run and of this call differ; restore what the "
            f"run was started with, or start a new run"
        )
    if not all((base / name).is_file() for name in BASE):
        raise RunError(f"{path} has no base network yet that another run could begin with; resume it as it is first")
    _check_base(base)


def take_over(prepared: Prepared, directory: RunDirectory) -> Family | None:
    """What a run, or a family, shares with the run that it was begun from; None where there is none.

    Args:
        prepared: of the new run, or the first one of the family.
        directory: of it; base network and scores are copied there when this is called for the first time.

    Raises:
        RunError: the old run is away and has not been copied yet.
    """
    about = read_run(directory.path).get(BRANCHED)
    if about is None:
        return None
    job, source = prepared.run_inputs.job, Path(about["path"])
    cache = ScoreCache.of(directory, job.search.storage)
    if "scores" not in about:
        if not has_begun(source) or read_run(source).get("id") != about["id"]:
            raise RunError(
                f"{directory.path} begins with {source}, which is not there any more: bring it back, or start a new run"
            )
        counts = {"scores": 0, "full_scores": 0}
        chosen = job.search.evaluator
        alone = is_relative(chosen.name, chosen.settings)
        for widths, score, full in () if alone else _scores(source, prepared.space, job.search.storage):
            if cache.scored(widths, full=full) is None:
                cache.add(widths, score, full=full, taken=True)
            counts["full_scores" if full else "scores"] += 1
        _check_base(first_of(source))
        for name in BASE:
            directory.write_bytes(name, content_of(first_of(source) / name))
        directory.update_run(**{BRANCHED: {**about, **counts}})
    return Family(directory.path, cache, _last(source))


def learned_by(path: Path) -> Any:
    """What the controller of the old run has learned that serves other budgets; None for nothing."""
    return read_run(_last(path)).get("learned") if has_begun(_last(path)) else None


def _check_base(place: Path) -> None:
    again = f"`autoprune resume {shlex.quote(str(place))}` makes it again, then repeat this"
    check_files(place, BASE, again)


def first_of(path: Path) -> Path:
    """The run in a directory; of a family the one that trains the base network."""
    return (parts_of(path) or (path,))[0]


def _last(path: Path) -> Path:
    return (parts_of(path) or (path,))[-1]


def _scores(path: Path, space: SearchSpace, url: str | None) -> Iterator[tuple[Widths, Score, bool]]:
    """(widths, score, whether on all validation data) of everything that a run, or a family, has scored."""
    for place in parts_of(path) or (path,):
        if has_begun(place):
            with opened(place) as run:
                yield from _scores_of(run, space, url)


def _scores_of(run: RunDirectory, space: SearchSpace, url: str | None) -> Iterator[tuple[Widths, Score, bool]]:
    storage, name = open_storage(url, run / "journal.log"), run.recorded("id")
    searched = f"{name}/search"
    for trial in Ledger(storage, searched, space).trials() if has_study(storage, searched) else ():
        if trial.state is TrialState.COMPLETE and (score := score_of(trial)) is not None:
            yield trial.widths, score, False
    for part in FULL_SCORES:
        noted = f"{name}/{part}"
        for record in Notebook(storage, noted).read().values() if has_study(storage, noted) else ():
            yield tuple(record["widths"]), Score(float(record["score"])), True
