"""What an engine is: it drives a session to its end and carries out work beside it; a session knows no engine.

An engine is opened before a run writes anything (so that an address that does not answer leaves nothing behind),
equipped once the base network is there, and closed when the run has ended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, final

from autoprune.config.stopping import NEVER, StoppingOptions
from autoprune.evaluators.base import Evaluator, Kind
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.rungs import Rungs
from autoprune.space.groups import Widths
from autoprune.trials.assignment import Outcome
from autoprune.trials.session import SearchSession

P = TypeVar("P")
R = TypeVar("R")


@final
@dataclass(frozen=True, eq=False)
class WorkerSetup:
    """What workers evaluate with; an engine sends it to each worker once.

    Attributes:
        factory: what candidates are made from.
        evaluator: factory -> evaluator; each worker builds its own, once.
        kind: of the evaluator: "short" (seconds; resident workers) or "training" (epochs; checkpoints).
        threads: CPU threads of torch and BLAS in every worker, so that sums are rounded as in the driver.
        directory: of the run; checkpoints go there where no other storage is given.
        artefact: folder of what the evaluator has prepared for this run, None where it prepares nothing.
        stopping: when evaluations are ended before their time.
        rungs: where the evaluator itself lets them end; None: it does not.
    """

    factory: CandidateFactory
    evaluator: Callable[[CandidateFactory], Evaluator]
    kind: Kind
    threads: int
    directory: Path
    artefact: Path | None = None
    stopping: StoppingOptions = NEVER
    rungs: Rungs | None = None

    def new_evaluator(self) -> Evaluator:
        """A new evaluator, ready to evaluate."""
        evaluator = self.evaluator(self.factory)
        if self.artefact is not None:
            evaluator.load(self.artefact)
        return evaluator


@final
@dataclass(frozen=True, slots=True)
class Scoring:
    """An evaluation outside the search, on all validation data.

    Attributes:
        widths: member of the space.
        seed: for the evaluator.
    """

    widths: Widths
    seed: int


@final
@dataclass(frozen=True, slots=True)
class Failure:
    """Work outside the search that gave no result.

    Attributes:
        error: a traceback, or what became of the worker.
    """

    error: str


class Engine(ABC):
    """Where evaluations run. A context manager that gives back what it holds.

    Whatever happens to a worker, every proposal of a session ends: with a score, or failed with a reason.
    """

    @abstractmethod
    def open(self) -> Self:
        """Reach the workers' machines; nothing is written before this.

        Raises:
            AutopruneError: they cannot be reached, or cannot hold what is asked for.
        """

    @abstractmethod
    def equip(self, setup: WorkerSetup, note: Callable[[str], None] = lambda line: None) -> None:
        """Give the workers what they evaluate with, in place of what they had.

        Args:
            setup: what they get.
            note: told in a line what happens to workers.

        Raises:
            AutopruneError: it cannot travel.
        """

    @abstractmethod
    def search(self, session: SearchSession) -> None:
        """Evaluate until the session has nothing left.

        Raises:
            RunError: there are no workers any more; the run can be resumed.
        """

    @abstractmethod
    def score(self, pieces: Sequence[Scoring]) -> Iterator[tuple[int, Outcome]]:
        """Yield (position of the piece, outcome) as evaluations end."""

    @abstractmethod
    def train(self, work: Callable[..., R], pieces: Sequence[P]) -> Iterator[tuple[int, R | Failure]]:
        """Yield (position of the piece, its result or why there is none) as trainings end.

        Args:
            work: (factory, piece) -> result, a function of a module; where workers keep checkpoints it is also given
                `watch=`, see `autoprune.training.watch`.
            pieces: what is trained; small.
        """

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many evaluations run at the same time, where there is enough to do."""

    @property
    @abstractmethod
    def busy(self) -> int:
        """How many run now."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """For run.json: "name" and "workers", and what happened to workers since it was opened, as counts."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back; closing twice is harmless."""

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
