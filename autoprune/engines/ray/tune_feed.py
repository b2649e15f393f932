"""What Ray Tune asks and tells while it runs: where trials come from, how each ends, which worker takes too long."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Any, final

import ray
from ray import tune
from ray.exceptions import RayActorError, RayTaskError
from ray.tune.search import Searcher

from autoprune.engines.ray.cluster import Cluster, short_reason, start_failed
from autoprune.engines.ray.tune_errors import error_of
from autoprune.engines.ray.tune_worker import Ending, Outgrown, WorkItem
from autoprune.errors import RunError


class Source(ABC):
    """Where pieces of work come from, and who is told how each one ended."""

    @abstractmethod
    def take(self) -> WorkItem | None:
        """The next piece, None where all have been handed out."""

    @abstractmethod
    def end(self, piece: WorkItem, ending: Ending) -> None:
        """A piece has ended; told once for each."""


@final
@dataclass(slots=True)
class _Attempt:
    piece: WorkItem
    trial: Any = None  # Tune's, once it runs
    since: float = 0.0
    overdue: bool = False


@final
class Dispatcher:
    """The driver's book: which pieces are out, and what became of them.

    Args:
        source: of the pieces.
        cluster: its options hold the number of retries; it counts what happens to workers.
        time_limit: seconds after which an attempt at a piece is ended; None: no limit.

    Attributes:
        failure: what went wrong in the driver; it ends the work.
        cancelled: set it to end the work.
    """

    def __init__(self, source: Source, cluster: Cluster, *, time_limit: float | None = None) -> None:
        self._source, self._cluster, self._time_limit = source, cluster, time_limit
        self._live: dict[str, _Attempt] = {}
        self._again: deque[WorkItem] = deque()
        self._lost: dict[str, int] = {}
        self._waiting = cluster.waiting()
        self.failure: BaseException | None = None
        self.cancelled = False

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes its arguments down; this one is of the driver's process only

    @property
    def over(self) -> bool:
        """Whether nothing more is to be done."""
        return self.cancelled or self.failure is not None

    @property
    def busy(self) -> int:
        """How many pieces run now."""
        return sum(attempt.trial is not None for attempt in list(self._live.values()))

    def take(self, trial: str) -> WorkItem | None:
        """The next piece, out as this trial of Tune's; lost ones first."""
        piece = self._again.popleft() if self._again else self._source.take()
        if piece is not None:
            self._live[trial] = _Attempt(piece)
        return piece

    @property
    def waits(self) -> bool:
        """Whether pieces are out: one that is lost comes again."""
        return bool(self._live)

    def started(self, trial: Any) -> None:
        """A worker has begun with the piece of a trial."""
        attempt = self._live[trial.trial_id]
        attempt.trial, attempt.since = trial, time.monotonic()

    def ended(self, trial: str, ending: Ending) -> None:
        """A piece has ended as its worker says."""
        piece = self._live.pop(trial).piece
        if ending.unsaved:
            self._cluster.happened["unsaved_states"] += ending.unsaved
        if self.failure is None:
            self._source.end(piece, ending)

    def broke(self, trial: str, error: BaseException) -> None:
        """A worker has died or could not be made; its piece comes again until its retries are used up."""
        attempt, happened = self._live.pop(trial), self._cluster.happened
        self._check_node(at_once=True)  # the worker may have died with its node, which is ours
        if self.over:  # the worker was ended with the work; what it did is done again after a restart
            return
        key, reason = attempt.piece.key, short_reason(error)
        seconds = time.monotonic() - attempt.since if attempt.trial is not None else 0.0
        if attempt.trial is None and getattr(error, "actor_init_failed", False):
            self.failure = start_failed(str(error))
            return
        if attempt.overdue:
            reason = f"stopped after the time_limit of {self._time_limit:g} s"
            self._stopped("timed_out", reason)
        elif isinstance(error, RayActorError):
            self._cluster.lost(reason)
            self._lost[key] = self._lost.get(key, 0) + 1
            if self._lost[key] <= self._cluster.options.retries:
                happened["retried"] += 1
                self._again.append(attempt.piece)
                return
            reason = f"{error}\nits worker was lost, the last of {self._lost[key]} attempts at this training"
        elif isinstance(error, Outgrown):
            reason = str(error.args[0])
            self._stopped("out_of_memory", reason)
        elif isinstance(error, RayTaskError):
            reason = str(error)  # with the worker's traceback
        self._source.end(attempt.piece, Ending(None, reason, seconds))

    def _stopped(self, event: str, reason: str) -> None:
        self._cluster.happened[event] += 1
        self._cluster.note(f"a worker was {reason}; another one takes its place")

    def _check_node(self, *, at_once: bool = False) -> None:
        try:
            self._cluster.check_node(at_once=at_once)
        except RunError as error:
            self.failure = self.failure or error

    def _check_patience(self) -> None:
        try:
            self._waiting.check()
        except RunError as error:
            self.failure = self.failure or error

    def look_after(self) -> None:
        """End the workers that are past the time limit, all where the work is to end; give up where none ever comes."""
        now, limit = time.monotonic(), self._time_limit
        self._check_node()
        if self.busy or not self._live:
            self._waiting.seen()
        else:
            self._check_patience()
        for attempt in self._live.values():
            late = limit is not None and now - attempt.since > limit
            if attempt.trial is not None and not attempt.overdue and (late or self.over):
                attempt.overdue = True
                ray.kill(attempt.trial.temporary_state.ray_actor)


@final
class TuneSearcher(Searcher):  # type: ignore[misc]  # ray has no types
    """Tune's source of trials: each is a piece of work.

    Args:
        dispatcher: has the pieces.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__(metric="score", mode="max")
        self._dispatcher = dispatcher

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next piece; None as long as one that is out may come again."""
        if self._dispatcher.over:
            return str(Searcher.FINISHED)
        try:
            piece = self._dispatcher.take(trial_id)
        except BaseException as error:  # noqa: BLE001 - raised again by the lane, not through Tune
            self._dispatcher.failure = error
            return str(Searcher.FINISHED)
        if piece is not None:
            return {"piece": piece}
        return None if self._dispatcher.waits else str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial has ended by itself, or the scheduler has stopped it early; errors go to `WorkerMonitor`."""
        if error or result is None:
            return
        seconds, share = result.get("seconds", 0.0), result.get("share", 100.0)
        stopped = Ending(result.get("score"), seconds=seconds, pruned=True, share=share)
        try:
            self._dispatcher.ended(trial_id, result.get("ending", stopped))
        except BaseException as failure:  # noqa: BLE001 - raised again by the lane, not through Tune
            self._dispatcher.failure = failure

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the session replays its ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the session replays its ledger."""


@final
class WorkerMonitor(tune.Callback, tune.Stopper):  # type: ignore[misc]  # ray has no types
    """Watches the workers of Tune.

    Args:
        dispatcher: is told.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker has begun."""
        self._dispatcher.started(trial)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has ended and was told; Tune keeps trials, but need not keep what came of them."""
        trial.last_result.pop("ending", None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker has died, or could not be made."""
        try:
            self._dispatcher.broke(trial.trial_id, error_of(trial))
        except BaseException as failure:  # noqa: BLE001 - raised again by the lane, not through Tune
            self._dispatcher.failure = failure

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Several times a second."""
        self._dispatcher.look_after()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped by its results here."""
        return False

    def stop_all(self) -> bool:
        """Whether Tune is to end."""
        return self._dispatcher.over
