"""The local engine: one evaluation after the other, in this process; unpromising ones may be stopped early."""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar, final

from autoprune.engines.base import Engine, Failure, Scoring, WorkerSetup
from autoprune.engines.stopping import StoppingWatch, SuccessiveHalving, make_stopper
from autoprune.errors import is_interrupted
from autoprune.evaluators.base import Evaluator
from autoprune.space.groups import Widths
from autoprune.training.watch import Stopped
from autoprune.trials.assignment import Assignment, Outcome
from autoprune.trials.run_directory import check_there
from autoprune.trials.session import SearchSession

P = TypeVar("P")
R = TypeVar("R")


@final
class LocalEngine(Engine):
    """Evaluates where it is called; the trials depend on the seed alone. Early stopping is of evaluators that train."""

    def __init__(self) -> None:
        self._setup: WorkerSetup | None = None
        self._evaluator: Evaluator | None = None
        self._busy = 0

    def open(self) -> Self:
        """Nothing has to be reached."""
        return self

    def equip(self, setup: WorkerSetup, note: Callable[[str], None] = lambda line: None) -> None:
        """See `Engine.equip`."""
        self._setup, self._evaluator = setup, setup.new_evaluator()

    def search(self, session: SearchSession) -> None:
        """See `Engine.search`."""
        self._busy = 1
        setup, evaluator = self._equipped
        stopper = make_stopper(setup.stopping.early_stopping) if evaluator.kind == "training" else None
        run(session, evaluator, stopper, check=functools.partial(check_there, setup.directory))
        self._busy = 0

    def score(self, pieces: Sequence[Scoring]) -> Iterator[tuple[int, Outcome]]:
        """See `Engine.score`."""
        for number, piece in enumerate(pieces):
            check_there(self._equipped[0].directory)
            yield number, evaluate(self._equipped[1], piece.widths, seed=piece.seed, full=True)

    def train(self, work: Callable[..., R], pieces: Sequence[P]) -> Iterator[tuple[int, R | Failure]]:
        """See `Engine.train`; what a training raises ends the run here, as it would end any loop."""
        for number, piece in enumerate(pieces):
            check_there(self._equipped[0].directory)
            yield number, work(self._equipped[0].factory, piece)

    @property
    def workers(self) -> int:
        """This process."""
        return 1

    @property
    def busy(self) -> int:
        """See `Engine.busy`."""
        return self._busy

    def record(self) -> dict[str, Any]:
        """See `Engine.record`."""
        return {"name": "local", "workers": 1}

    def close(self) -> None:
        """There is nothing to give back."""

    @property
    def _equipped(self) -> tuple[WorkerSetup, Evaluator]:
        if self._setup is None or self._evaluator is None:
            raise RuntimeError("an engine is equipped before it works")
        return self._setup, self._evaluator


def run(
    session: SearchSession,
    evaluator: Evaluator,
    stopper: SuccessiveHalving | None = None,
    *,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Evaluate until the session has nothing left.

    Args:
        session: what is evaluated; of a resumed one the stopper learns what happened before.
        evaluator: of kind "training" where there is a stopper.
        stopper: decides who goes on; baselines are never stopped.
        check: called before each evaluation; raises where it would be in vain.
    """
    if stopper is not None:
        for trial in session.trials:
            last = () if trial.score is None or trial.fidelity == 1 else ((trial.fidelity, trial.score),)
            stopper.learn(trial.seed, trial.partial or last)  # engines that note only the last score
    while (assignment := session.ask()) is not None:
        check()
        watch = _watch(assignment, stopper)
        widths, seed, best = assignment.widths, assignment.seed, assignment.incumbents
        session.tell(assignment, evaluate(evaluator, widths, seed=seed, watch=watch, incumbents=best))


def evaluate(
    evaluator: Evaluator,
    widths: Widths,
    *,
    seed: int,
    full: bool = False,
    watch: StoppingWatch | None = None,
    incumbents: Sequence[Widths] = (),
) -> Outcome:
    """Evaluate once; whatever a candidate does wrong becomes a failed outcome with its traceback."""
    start = time.perf_counter()
    watched: dict[str, Any] = {} if watch is None else {"watch": watch}
    if evaluator.follows:
        watched["incumbents"] = tuple(incumbents[: evaluator.follows])

    def about() -> dict[str, Any]:
        return {
            "seconds": time.perf_counter() - start,
            "partial": () if watch is None else tuple(watch.partial),
        }

    try:
        outcome = Outcome.of(evaluator.evaluate(widths, seed=seed, full=full, **watched), **about())
    except (Exception, SystemExit) as error:  # the worker boundary: a failing candidate never ends a search
        if is_interrupted(error):
            raise
        if watch is None or not watch.stopped or not isinstance(error, Stopped):
            return Outcome(None, traceback.format_exc(), **about())
    if watch is None or not watch.stopped:
        return outcome
    share, last = watch.partial[-1]  # what it was told to stop with, whatever it returned
    return Outcome(last, pruned=True, fidelity=share, **about())


def _watch(assignment: Assignment, stopper: SuccessiveHalving | None) -> StoppingWatch | None:
    if stopper is None or assignment.origin != "controller":
        return None
    return StoppingWatch(stopper, assignment.seed)
