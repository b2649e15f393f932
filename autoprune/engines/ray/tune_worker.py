"""What runs in a worker of Ray Tune: one training after the other, an epoch at a time, each from its last state.

Longer than others, as what a worker is sent, keeps and sends back is one protocol.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, final

import ray
from ray import tune

from autoprune.engines.base import Scoring, WorkerSetup
from autoprune.engines.ray.cluster import own_memory
from autoprune.engines.ray.packing import unpack, unpack_setup, use_threads
from autoprune.engines.ray.tune_states import States
from autoprune.tasks.score import Score, as_score
from autoprune.training.watch import State, Stopped, Watch
from autoprune.trials.assignment import Assignment, Outcome

Work: TypeAlias = Callable[[Any, Watch], Any]
"""(piece, watch) -> result."""


@final
@dataclass(frozen=True, slots=True)
class WorkItem:
    """One piece of work on its way to a worker.

    Attributes:
        key: names it on the storage; the same after a restart of the driver.
        packed: bytes of it.
        scores: whether it is scored after each epoch, so that it can be stopped early.
    """

    key: str
    packed: bytes
    scores: bool

    def __str__(self) -> str:
        return self.key


@final
@dataclass(frozen=True, slots=True)
class Ending:
    """What a worker says of a piece that has ended there.

    Attributes:
        result: of the work; None if it failed.
        error: traceback; None if it did not.
        seconds: spent on it, over all attempts.
        epochs: trained in this attempt.
        unsaved: how many states could not be written in this attempt.
        pruned: whether it was stopped early; then the result is its last score.
        share: of the training that was done, in percent.
    """

    result: Any
    error: str | None = None
    seconds: float = 0.0
    epochs: int = 0
    unsaved: int = 0
    pruned: bool = False
    share: float = 100.0


@final
@dataclass(frozen=True, slots=True)
class Epoch:
    """What a worker says after an epoch.

    Attributes:
        share: of the training that is done, in percent.
        score: of the network as it is; None where none was asked for.
        seconds: spent on it so far, over all attempts.
    """

    share: float
    score: float | None
    seconds: float


class Outgrown(Exception):  # noqa: N818 - said of a worker
    """A worker holds more memory than it may."""


class Training(tune.Trainable):  # type: ignore[misc]  # ray has no types
    """A resident process: Tune gives it one piece after the other and lets it do them epoch by epoch."""

    def setup(
        self,
        config: dict[str, Any],
        build: Callable[[WorkerSetup], Work],
        box: list[Any],
        device: str,
        states: str,
        memory_limit: int | None,
    ) -> None:
        """Unpack the setup, once in the life of the process.

        Args:
            config: holds the first piece.
            build: setup -> what is done with each piece.
            box: holds a reference to the packed setup in the object store.
            device: where this worker computes.
            states: folder of the states.
            memory_limit: bytes that this process may hold of its own.
        """
        setup = unpack_setup(ray.get(box[0]), device)
        self._threads, self._memory_limit = setup.threads, memory_limit
        self._job = build(setup)
        self._states = States(states)
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Give up what is under way and take the next piece."""
        self._stepwise.stop()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Work to the end of the next epoch, or of the piece.

        Raises:
            Outgrown: the process holds more memory than it may.
        """
        self._stepwise.go_on()
        while (news := self._stepwise.news(timeout=0.1)) is None:
            self._check_memory()
        if isinstance(news, Ending):
            return {"ending": news, "done": True}
        judged = {} if news.score is None else {"score": news.score}
        return {"share": news.share, "seconds": news.seconds, **judged}

    def cleanup(self) -> None:
        """Give up what is under way."""
        if not self._stepwise.halts:
            os._exit(1)  # it outgrew its memory and goes on: no use waiting
        self._stepwise.stop()

    def _check_memory(self) -> None:
        if self._memory_limit is not None and (held := own_memory()) > self._memory_limit:
            limit = self._memory_limit / 1e9
            raise Outgrown(f"stopped at {held / 1e9:.2f} GB, above the memory_limit of {limit:.2f} GB")

    def _begin(self, config: dict[str, Any]) -> None:
        piece: WorkItem = config["piece"]
        inside = unpack(piece.packed)

        def job(watch: Watch) -> Any:
            use_threads(self._threads)  # torch counts threads for each thread of ours
            return self._job(inside, watch)

        self._stepwise = Stepwise(job, self._states, piece.key, scores=piece.scores)


@final
class Stepwise(Watch):
    """Work that halts after every epoch until it is told to go on; it runs in a thread of its own.

    Args:
        job: is given this watch.
        states: where its states are kept.
        key: names it there.
        scores: whether to score after each epoch.

    Attributes:
        halts: whether it waits to be told to go on, or has ended.
    """

    def __init__(self, job: Callable[[Watch], Any], states: States, key: str, *, scores: bool) -> None:
        self._job, self._states, self._key, self._scores = job, states, key, scores
        self._news: SimpleQueue[Epoch | Ending] = SimpleQueue()
        self._go = threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._stopped, self.halts = False, True
        self._earlier, self._started = 0.0, time.perf_counter()
        self._epochs = self._unsaved = 0

    def go_on(self) -> None:
        """Let it work to the end of the next epoch, or to its own end."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        self.halts = False
        self._go.release()

    def news(self, *, timeout: float) -> Epoch | Ending | None:
        """What it says when it halts; None if it has not within so many seconds."""
        try:
            said = self._news.get(timeout=timeout)
        except Empty:
            return None
        self.halts = True
        return said

    def stop(self) -> None:
        """Give it up where it halts."""
        self._stopped = True
        self._go.release()
        if self._thread is not None:
            self._thread.join()

    def restore(self) -> State | None:
        """What an earlier attempt wrote last."""
        try:
            kept = self._states.read(self._key)
        except Exception:  # noqa: BLE001 - a storage that does not answer, or half a file: begin anew
            return None
        if kept is None:
            return None
        self._earlier = float(kept["seconds"])
        training: State = kept["training"]
        return training

    def epoch(self, done: int, total: int, score: Callable[[], float] | None, state: Callable[[], State]) -> None:
        """Write the state, report, and halt; after the last epoch there is nothing to wait for."""
        if self._stopped:  # the work has caught the signal and went on
            raise Stopped
        self._epochs += 1
        if done == total:
            return
        value = float(score()) if self._scores and score is not None else None
        try:
            self._states.write(self._key, {"seconds": self._seconds(), "training": state()})
        except Exception:  # noqa: BLE001 - the storage does not answer: a training that goes well is not given up for it
            self._unsaved += 1
        self._news.put(Epoch(100 * done / total, value, self._seconds()))
        self._go.acquire()
        if self._stopped:
            raise Stopped

    def _run(self) -> None:
        self._go.acquire()
        result, error = None, None
        try:
            result = self._job(self)
        except BaseException:  # noqa: BLE001 - the worker boundary; an exit in a thread would leave the worker waiting
            error = traceback.format_exc()
        self._news.put(Ending(result, error, self._seconds(), self._epochs, self._unsaved))

    def _seconds(self) -> float:
        return self._earlier + time.perf_counter() - self._started


@final
class Evaluations:
    """Evaluates in a worker; the evaluator is built once.

    Args:
        setup: what is evaluated with.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self._evaluator = setup.new_evaluator()
        self._watched = self._evaluator.kind == "training" or setup.rungs is not None

    def __call__(self, piece: Assignment | Scoring, watch: Watch) -> Score:
        """The score; a finite number."""
        full = isinstance(piece, Scoring)
        watched: dict[str, Any] = {"watch": watch} if self._watched else {}
        if self._evaluator.follows and isinstance(piece, Assignment):
            watched["incumbents"] = piece.incumbents
        score = as_score(self._evaluator.evaluate(piece.widths, seed=piece.seed, full=full, **watched))
        Outcome.of(score)  # refuses what is not finite
        return score


@final
class Trainings:
    """Carries out other trainings in a worker.

    Args:
        setup: what networks are made from.
        work: (factory, piece, watch=…) -> result, packed.
    """

    def __init__(self, setup: WorkerSetup, work: bytes) -> None:
        self._factory, self._work = setup.factory, unpack(work)

    def __call__(self, piece: Any, watch: Watch) -> Any:
        """The result."""
        return self._work(self._factory, piece, watch=watch)
