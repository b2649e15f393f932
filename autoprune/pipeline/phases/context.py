"""What every phase of a run is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from autoprune.config.job import Job
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.evaluators.making import is_relative, scale_of
from autoprune.pipeline.changes import CONTINUED
from autoprune.pipeline.family import Family, ScoreCache
from autoprune.pipeline.prepared import Prepared
from autoprune.pipeline.run_engine import RunEngine
from autoprune.progress.base import Progress
from autoprune.progress.callback_list import CallbackList
from autoprune.tasks.base import Task
from autoprune.texts import ScoreScale
from autoprune.trials.ledger import Ledger, Notebook, Storage
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.run_files import read_run


@final
@dataclass(frozen=True, eq=False)
class RunContext:
    """One run, as its phases see it.

    Attributes:
        prepared: model, data and the space under its budget.
        directory: of the run, open.
        progress: shows what happens.
        engine: evaluates and trains.
        storage: of the ledger and of every other score.
        family: what the run shares with others; None: it is alone.
        told: callbacks; they hear what happens.
    """

    prepared: Prepared
    directory: RunDirectory
    progress: Progress
    engine: RunEngine
    storage: Storage
    family: Family | None
    told: CallbackList

    @property
    def job(self) -> Job:
        """What was asked for."""
        return self.prepared.run_inputs.job

    @property
    def task(self) -> Task:
        """Trains and scores."""
        return self.prepared.run_inputs.task

    @property
    def own_scale(self) -> ScoreScale | None:
        """What scores of the search count, where that is not what the task's count."""
        return scale_of(self.job.search.evaluator.name, self.job.search.evaluator.settings)

    @property
    def search_scale(self) -> ScoreScale:
        """What scores of the search count."""
        return self.own_scale or self.task.scale

    @property
    def domain(self) -> BudgetedSpace:
        """The space under its budget."""
        return self.prepared.domain

    @property
    def cache(self) -> ScoreCache | None:
        """The scores of all runs of the family; None where there is none, or where scores count in one run alone."""
        chosen = self.job.search.evaluator
        if self.family is None or is_relative(chosen.name, chosen.settings):
            return None
        return self.family.scores

    @property
    def has_scores(self) -> bool:
        """Whether anything was scored already."""
        books = ("allocation tables", "comparison")
        return bool(Ledger(self.storage, self.study("search"), self.prepared.space).proposals()) or any(
            self.notebook(part).read() for part in books
        )

    def study(self, part: str) -> str:
        """The name of a study: an external storage may hold those of many runs."""
        return f"{self.directory.recorded('id')}/{part}"

    def notebook(self, part: str) -> Notebook:
        """Results beside the search, each on disk the moment it is known, with the continuation that it is of."""
        about = {CONTINUED: self.continuation} if self.continuation else {}
        return Notebook(self.storage, self.study(part), about, note=self.progress.note)

    @property
    def continuation(self) -> int:
        """How often the run has gone on with another job than it began with."""
        return len(read_run(self.directory.path).get(CONTINUED, {}))
