"""The engine at the service of one run: what it is given to work with, and what run.json tells of it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, final

import torch

from autoprune.engines.base import Engine, WorkerSetup
from autoprune.errors import RunError
from autoprune.evaluators.artefact import LIST, prepared
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.making import kind_of, make_evaluator, prepares_something, rungs_of
from autoprune.pipeline.prepared import Prepared
from autoprune.progress.base import Progress
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.run_files import checksum, checksum_of, read_run


@final
class RunEngine:
    """An open engine, working for one run; another run may have had it before, or has it in between.

    Args:
        engine: open.
        prepared: names the evaluator.
        directory: of the run.
        progress: is told what happens to workers.
    """

    def __init__(self, engine: Engine, prepared: Prepared, directory: RunDirectory, progress: Progress) -> None:
        self.engine = engine
        self._prepared, self._directory, self._progress = prepared, directory, progress
        self._earlier = _counts(read_run(directory.path).get("engine", {}))
        self._before = _counts(engine.record())

    def equip(self, factory: CandidateFactory) -> None:
        """Give the workers this factory and the job's evaluator."""
        job, run = self._prepared.run_inputs.job, self._directory.path
        chosen = job.search.evaluator
        make = functools.partial(make_evaluator, chosen.name, settings=chosen.settings)
        prepares = prepares_something(chosen.name, chosen.settings)
        setup = WorkerSetup(
            factory,
            make,
            kind_of(chosen.name, chosen.settings),
            torch.get_num_threads(),
            run,
            self._artefact(make(factory)) if prepares else None,
            job.search.stopping,
            rungs_of(chosen.name, chosen.settings),
        )
        self.engine.equip(setup, self._progress.note)

    def _artefact(self, evaluator: Evaluator) -> Path:
        """What the evaluator prepares once.

        Raises:
            RunError: it was lost, and is not what it was.
        """
        directory = self._directory
        if not (directory / LIST).is_file():
            self._progress.note(f"the evaluator {self._prepared.run_inputs.job.search.evaluator.name!r} is prepared")
        folder = prepared(evaluator, directory.path, seed=self._prepared.run_inputs.job.seed)
        known, now = checksum_of(directory.path, LIST), checksum((directory / LIST).read_bytes())
        if known is None:
            directory.list_files([directory / LIST])
        elif known != now:
            raise RunError(
                f"{folder} was lost or damaged, and what the evaluator has prepared now is something else, to which "
                f"the trials of this run do not belong: restore it and {LIST}, or start a new run"
            )
        return folder

    def record(self) -> dict[str, Any]:
        """The engine, and what happened to its workers during this run, over all resumptions."""
        now = self.engine.record()
        happened = {
            event: self._earlier.get(event, 0) + count - self._before.get(event, 0)
            for event, count in {**dict.fromkeys(self._earlier, 0), **self._before, **_counts(now)}.items()
        }
        return {"name": now["name"], "workers": now["workers"], **{e: count for e, count in happened.items() if count}}


def _counts(record: dict[str, Any]) -> dict[str, int]:
    return {event: count for event, count in record.items() if event not in ("name", "workers")}
