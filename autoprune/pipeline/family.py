"""What the searches of a family of budgets share, and where each of them lies."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, final

from autoprune.config.job import Job
from autoprune.files import content_of
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score, as_score
from autoprune.trials.ledger import Notebook, open_storage
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.run_files import differing, has_begun, read_run

BASE = ("base.json", "base.safetensors")
"""The files of the base network; the weights are written last."""

TRAINED = "trained"
"""Of `run.json`: whether the given weights are the base network's; False: it is trained first."""


@final
@dataclass(frozen=True, eq=False)
class Family:
    """Handed to each run of a family.

    Attributes:
        base: directory of the run that trains the base network, the first one.
        scores: every score of every run so far.
        before: directory of the run before this one; None for the first.
    """

    base: Path
    scores: ScoreCache
    before: Path | None = None

    def copy_base(self, directory: RunDirectory) -> None:
        """Copy the base network to another run, if it is there; its weights last, as they mark it as trained."""
        if directory.path != self.base and has_begun(self.base) and not differing(self.base, BASE):
            if not all((self.base / name).is_file() for name in BASE):
                return
            for name in BASE:
                directory.write_bytes(name, content_of(self.base / name))

    def after(self, place: Path) -> Family:
        """What the next run is handed, when the one in this directory has ended."""
        return replace(self, before=place)

    @property
    def handed_on(self) -> Any:
        """What the controller of the run before has learned that serves other budgets; None for nothing."""
        if self.before is None or not has_begun(self.before):
            return None
        return read_run(self.before).get("learned")


@final
class ScoreCache:
    """Scores by widths, on disk the moment they are known."""

    def __init__(self, notebook: Notebook) -> None:
        self._notebook = notebook
        records = notebook.read()
        self._known = {
            key: Score(float(record["score"]), record.get("standard_error"), record.get("paired", False))
            for key, record in records.items()
        }
        self._taken = {key for key, record in records.items() if record.get("taken")}

    @classmethod
    def of(cls, directory: RunDirectory, storage: str | None) -> Self:
        """The scores that lie in a directory, or in the storage of its ledger."""
        note = directory.note
        opened = open_storage(storage, directory / "scores.log", note=note)
        return cls(Notebook(opened, f"{directory.recorded('id')}/scores", note=note))

    def scored(self, widths: Widths, *, full: bool) -> Score | None:
        """The score of these widths, on all validation data or on the search's part; None where there is none."""
        return self._known.get(_key(widths, full))

    def score(self, widths: Widths, *, full: bool) -> float | None:
        """As `scored`, without its noise."""
        known = self.scored(widths, full=full)
        return None if known is None else float(known)

    def is_taken(self, widths: Widths, *, full: bool) -> bool:
        """Whether the score of these widths is that of a run that this one was begun from."""
        return _key(widths, full) in self._taken

    def add(self, widths: Widths, score: float | Score, *, full: bool, taken: bool = False) -> None:
        """Remember a score, which may be taken from another run; a second one of the same widths is dropped."""
        if self.scored(widths, full=full) is not None:
            return
        given = as_score(score)
        self._known[_key(widths, full)] = given
        noise = {"standard_error": given.standard_error, "paired": given.paired}
        known: dict[str, Any] = {} if given.standard_error is None else noise
        if taken:
            self._taken.add(_key(widths, full))
            known = {**known, "taken": True}
        self._notebook.write(_key(widths, full), float(given), known)


def _key(widths: Widths, full: bool) -> str:
    return "-".join(map(str, widths)) + ("/all" if full else "")


def parts(job: Job, path: Path) -> tuple[Path, ...]:
    """The run directories of a family, in the order of its budgets."""
    return tuple(path / f"{number}-{slug(one)}" for number, one in enumerate(job.family, start=1))


def parts_of(path: Path) -> tuple[Path, ...]:
    """The run directories of the family in this directory; none where it is a run, or nothing."""
    names = read_run(path).get("family", []) if has_begun(path) else []
    return tuple(path / name for name in names)


def opened(place: Path) -> RunDirectory:
    """The directory of a run that has begun, or a new one.

    Raises:
        RunError: another process works on it, it cannot be written, or holds something else.
    """
    return (RunDirectory.reopen if has_begun(place) else RunDirectory.create)(place)


def slug(job: Job) -> str:
    """The budget of a job as a folder name: flops-50, params-1.2M, flops-45-50."""
    words = []
    for metric, given in job.constraints.items():
        ends = [given[end] for end in ("min", "max") if end in given] if isinstance(given, dict) else [given]
        words += [metric, *(f"{end:g}" if isinstance(end, float) else str(end) for end in ends)]
    return "-".join(re.sub(r"[^A-Za-z0-9._]+", "", word) for word in words)
