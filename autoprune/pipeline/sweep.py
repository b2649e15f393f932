"""A family of searches, one for each budget of a job: one trace, one base network, one cache of scores, one overview.

The family's directory holds a run directory for each budget, complete as any other; `scores.log` with every score; and
`overview.md`, written anew after each run.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from autoprune.config.job import Job
from autoprune.engines.base import Engine
from autoprune.errors import RunError
from autoprune.files import read_json
from autoprune.pipeline import phases
from autoprune.pipeline.continuation import RECORD
from autoprune.pipeline.family import Family, ScoreCache
from autoprune.pipeline.inputs import cpu_threads, how_to_resume
from autoprune.pipeline.overview import write_overview
from autoprune.pipeline.prepare import Prepared, RunInputs, check_scoring, job_fingerprint, prepare_family, same_job
from autoprune.pipeline.provenance import provenance
from autoprune.progress import make_progress
from autoprune.trials.ledger import Notebook, open_storage
from autoprune.trials.run_directory import RunDirectory
from autoprune.verdict.record import RunRecord


def start(run_inputs: RunInputs, path: Path, engine: Engine, *, progress: str = "auto") -> tuple[RunRecord, ...]:
    """Start a family and see it through.

    Args:
        run_inputs: of a job with several budgets.
        path: the family's directory.
        engine: open.
        progress: how it is shown.

    Raises:
        AutopruneError: the job cannot be used; then nothing has been written. Or a run failed.
    """
    RunDirectory.check_free(path)
    with cpu_threads(run_inputs.job.threads):
        family = prepare_family(run_inputs)
        check_scoring(family[0])
        with RunDirectory.create(path) as directory:
            directory.write_text("job.yaml", run_inputs.job.text)
            directory.update_run(
                id=f"{path.name}-{secrets.token_hex(4)}",
                **provenance(),
                fingerprints={"job": job_fingerprint(run_inputs.job)},
                family=[part.name for part in parts(run_inputs.job, path)],
                **{RECORD: run_inputs.job.engine.of_trials},
            )
            return _finish(family, directory, engine, progress, how_to_resume(run_inputs.job))


def resume(
    run_inputs: RunInputs, path: Path, engine: Engine, *, progress: str = "auto", notes: Sequence[str] = ()
) -> tuple[RunRecord, ...]:
    """Go on with a family: runs that have ended are only read, the others finished, each as if it had not been stopped.

    Args:
        run_inputs: of the family's job.
        path: the family's directory.
        engine: open.
        progress: how it is shown.
        notes: shown first.

    Raises:
        RunError: there is no such family, another process works on it, or it was started with something else.
    """
    with RunDirectory.reopen(path) as directory, cpu_threads(directory.recorded("threads")):
        if not same_job(directory.recorded("fingerprints").get("job"), run_inputs.job):
            raise RunError(
                f"{path} cannot be resumed: its job.yaml is not that of the start; restore it, or start a new family"
            )
        return _finish(prepare_family(run_inputs), directory, engine, progress, notes)


def parts(job: Job, path: Path) -> tuple[Path, ...]:
    """The run directories of a family, in the order of its budgets."""
    return tuple(path / f"{number}-{_slug(one)}" for number, one in enumerate(job.family, start=1))


def parts_of(path: Path) -> tuple[Path, ...]:
    """The run directories of the family in this directory; none where it is a run, or nothing."""
    mark = path / "run.json"
    names = read_json(mark).get("family", []) if mark.is_file() else []
    return tuple(path / name for name in names)


def _finish(
    family: Sequence[Prepared], directory: RunDirectory, engine: Engine, progress: str, notes: Sequence[str]
) -> tuple[RunRecord, ...]:
    places = parts_of(directory.path)
    url = family[0].run_inputs.job.search.storage
    notebook = Notebook(open_storage(url, directory / "scores.log"), f"{directory.recorded('id')}/scores")
    scores = ScoreCache(notebook)
    records: list[RunRecord] = []
    for number, (prepared, place) in enumerate(zip(family, places, strict=True), start=1):
        with make_progress(progress) as shown:
            for line in notes if number == 1 else ():
                shown.note(line)
            shown.note(
                f"budget {number} of {len(places)}: {prepared.domain.budget}; if it is stopped, "
                f"`autoprune resume {shlex.quote(str(directory.path))}` goes on"
            )
            opened, work = _opened(place)
            shared = Family(places[0], scores, before=places[number - 2] if number > 1 else None)
            with opened as run:
                records.append(work(prepared, run, shown, engine, shared))
        write_overview(records, directory.path, budgets=len(places))
    return tuple(records)


def _opened(place: Path) -> tuple[RunDirectory, Callable[..., RunRecord]]:
    """The directory of one run, and whether to start or to resume there."""
    if (place / "run.json").is_file():
        return RunDirectory.reopen(place), phases.resume
    return RunDirectory.create(place), phases.start


def _slug(job: Job) -> str:
    """A budget as a folder name: flops-50, params-1.2M, flops-45-50."""
    words = []
    for metric, given in job.constraints.items():
        ends = [given[end] for end in ("min", "max") if end in given] if isinstance(given, dict) else [given]
        words += [metric, *(f"{end:g}" if isinstance(end, float) else str(end) for end in ends)]
    return "-".join(re.sub(r"[^A-Za-z0-9._]+", "", word) for word in words)
