"""The lane of trainings: Ray Tune runs them epoch by epoch in resident processes, moves them on when a worker is lost,
and stops hopeless ones early where the job asks for early stopping.

The session and its ledger stay the truth. Tune's own notes lie in the run directory until the work is done; the state
of each training lies on the storage path, so that a new worker, or a new driver, goes on from its last epoch.

Longer than others, as one lane keeps count of all that Tune does.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import queue
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, final

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from autoprune.engines.base import Failure, Scoring, WorkerSetup
from autoprune.engines.ray.cluster import Cluster, run_name
from autoprune.engines.ray.packing import pack
from autoprune.engines.ray.tune_feed import Dispatcher, Source, TuneSearcher, WorkerMonitor
from autoprune.engines.ray.tune_rungs import RungScheduler
from autoprune.engines.ray.tune_states import States
from autoprune.engines.ray.tune_worker import Ending, Evaluations, Training, Trainings, Work, WorkItem
from autoprune.engines.rungs import RungRule
from autoprune.engines.stopping import BRACKETS, GRACE, REDUCTION
from autoprune.errors import ConfigError
from autoprune.randomness import untouched
from autoprune.trials.assignment import Assignment, Outcome
from autoprune.trials.run_files import has_begun, read_run
from autoprune.trials.session import SearchSession

P = TypeVar("P")
R = TypeVar("R")

_GLANCE = 0.2
"""Seconds between two looks at what Tune does."""

_QUIET = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a score comes only where a scheduler wants one
    "TUNE_FORCE_TRIAL_CLEANUP_S": "10",
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # the ledger is the truth
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of data stay right
}


@final
class TuneLane:
    """Trainings on a cluster.

    Args:
        cluster: options, resources and number of workers; what happens to workers is counted there.
        packed: reference to the packed setup in the object store.
        directory: of the run; states go there where no storage path is set.

    Raises:
        ConfigError: the storage path cannot be used, or the cluster is reached through Ray's client.
    """

    def __init__(self, cluster: Cluster, packed: Any, directory: Path) -> None:
        if ray.util.client.ray.is_connected():
            raise ConfigError(
                "engine: Ray Tune cannot be driven through ray://; start the run on the cluster (`ray job submit`, or "
                "address: auto on one of its nodes). A run that has begun can be resumed there"
            )
        self._cluster, self._packed, self._directory = cluster, packed, directory
        if cluster.options.storage_path is None and len(_machines()) > 1:
            cluster.note("trainings that move to another machine begin anew: set storage_path to a place that all see")
        self._folder = states_folder(cluster.options.storage_path, directory)
        self._states = States(self._folder)
        self._states.check()
        self._dispatcher: Dispatcher | None = None

    @property
    def busy(self) -> int:
        """How many trainings run now."""
        return 0 if self._dispatcher is None else self._dispatcher.busy

    def search(self, session: SearchSession) -> None:
        """See `Engine.search`."""
        rungs, prunes = self._cluster.rungs, self._cluster.stopping.early_stopping != "none"
        rule = None if rungs is None else RungRule(rungs, session)
        source = _Session(session, self._states, prunes=prunes, rule=rule)
        for _ in self._run(source, Evaluations, partial(self._scheduler, source), limited=True):
            pass

    def score(self, pieces: Sequence[Scoring]) -> Iterator[tuple[int, Outcome]]:
        """See `Engine.score`."""
        for position, ending in self._all(pieces, "score", Evaluations, limited=True):
            yield position, _outcome(ending)

    def train(self, work: Callable[..., R], pieces: Sequence[P]) -> Iterator[tuple[int, R | Failure]]:
        """See `Engine.train`."""
        build = partial(Trainings, work=pack(work, "what is to be trained"))
        name = f"{work.__module__}.{work.__qualname__}"
        for position, ending in self._all(pieces, name, build, limited=False):  # they take as long as they take
            yield position, ending.result if ending.error is None else Failure(ending.error)

    def close(self) -> None:
        """Nothing is held between pieces of work."""
        with suppress(Exception):  # the storage does not answer: an empty folder harms nobody
            self._states.tidy()

    def _all(
        self, pieces: Sequence[Any], what: str, build: Callable[[WorkerSetup], Work], *, limited: bool
    ) -> Iterator[tuple[int, Ending]]:
        source = _Pieces(pieces, what, self._states)
        yield from self._run(source, build, lambda dispatcher: FIFOScheduler(), limited=limited)

    def _run(
        self,
        source: _Session | _Pieces,
        build: Callable[[WorkerSetup], Work],
        scheduler: Callable[[Dispatcher], TrialScheduler],
        *,
        limited: bool,
    ) -> Iterator[tuple[int, Ending]]:
        """Yield what the source puts on its counter while Tune works in a thread of its own.

        Args:
            source: of the pieces.
            build: what workers make of their setup.
            scheduler: makes what stops pieces early, or none.
            limited: whether the job's time limit is for these pieces.
        """
        limit = self._cluster.stopping.time_limit if limited else None
        self._dispatcher = dispatcher = Dispatcher(source, self._cluster, time_limit=limit)
        given = (dispatcher, source.counter, build, scheduler(dispatcher))
        thread = threading.Thread(target=self._fit, args=given, daemon=True)
        thread.start()
        try:
            while (ended := _next(source.counter, self._cluster.check_node)) is not None:
                yield ended
        finally:
            dispatcher.cancelled = True  # also where the caller stops listening, or Ctrl-C is pressed
            while thread.is_alive() and not self._cluster.ended:  # else Tune waits for it, and in vain
                thread.join(_GLANCE)
            self._dispatcher = None
        if dispatcher.failure is not None:
            raise dispatcher.failure

    def _fit(
        self, dispatcher: Dispatcher, counter: Counter, build: Callable[[WorkerSetup], Work], scheduler: TrialScheduler
    ) -> None:
        place = self._directory / f".tune-{uuid.uuid4().hex[:8]}"
        try:
            with _quiet(), untouched():
                self._tuner(dispatcher, build, scheduler, place).fit()
        except BaseException as error:  # noqa: BLE001 - raised again where the work was asked for
            dispatcher.failure = dispatcher.failure or error
        finally:
            shutil.rmtree(place, ignore_errors=True)
            counter.put(None)

    def _tuner(
        self, dispatcher: Dispatcher, build: Callable[[WorkerSetup], Work], scheduler: TrialScheduler, place: Path
    ) -> tune.Tuner:
        per_worker, monitor = self._cluster.per_worker, WorkerMonitor(dispatcher)
        training = tune.with_parameters(
            Training,
            build=build,
            box=[self._packed],
            device=self._cluster.device,
            states=self._folder,
            memory_limit=self._cluster.stopping.memory_limit,
        )
        training.__name__ = f"autoprune {run_name(self._directory)} training"  # what Ray shows of its workers
        resources = {"cpu": per_worker["num_cpus"], "gpu": per_worker["num_gpus"], **per_worker["resources"]}
        return tune.Tuner(
            tune.with_resources(training, {name: share for name, share in resources.items() if share}),
            tune_config=tune.TuneConfig(
                search_alg=TuneSearcher(dispatcher),
                scheduler=scheduler,
                num_samples=-1,
                max_concurrent_trials=self._cluster.workers,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(place.absolute()),
                stop=monitor,
                callbacks=[monitor],
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # see `States`
                failure_config=tune.FailureConfig(max_failures=0),  # a lost piece comes again from the dispatcher
            ),
        )

    def _scheduler(self, source: _Session, dispatcher: Dispatcher) -> TrialScheduler:
        """Scores are compared at shares of the training, so that its number of epochs need not be known."""
        if source.rule is not None:
            return RungScheduler(source.judge, dispatcher)
        name = self._cluster.stopping.early_stopping
        if name == "none":
            return FIFOScheduler()
        return ASHAScheduler(
            time_attr="share",
            metric="score",
            mode="max",
            max_t=100,
            grace_period=100 * GRACE,
            reduction_factor=REDUCTION,
            brackets=BRACKETS[name],
            stop_last_trials=False,
        )


Counter = queue.SimpleQueue[tuple[int, Ending] | None]
"""Over which ended pieces are handed to the caller; None: nothing follows."""


@final
class _Session(Source):
    """Proposals of a session; they are told in the thread in which Tune works."""

    def __init__(self, session: SearchSession, states: States, *, prunes: bool, rule: RungRule | None = None) -> None:
        self._session, self._states, self._prunes, self.rule = session, states, prunes, rule
        self._partial: dict[str, list[tuple[float, float]]] = {}
        self._assignments: dict[str, Assignment] = {}
        self.counter: Counter = queue.SimpleQueue()

    def take(self) -> WorkItem | None:
        """See `Source.take`; baselines are never stopped early."""
        assignment = self._session.ask()
        if assignment is None:
            return None
        key = f"trial-{assignment.number}"
        self._assignments[key] = assignment
        scores = self.rule is not None or (self._prunes and assignment.origin == "controller")
        return WorkItem(key, pickle.dumps(assignment), scores)

    def judge(self, key: str, percent: float, score: float) -> bool:
        """Whether a piece goes on after this share of its steps; baselines always do."""
        assignment, rule = self._assignments[key], self.rule
        rung = None if rule is None else rule.rung(assignment.seed, percent / 100)
        if rule is None or rung is None:
            return True
        told = self._partial.setdefault(key, [])
        if rung not in dict(told):
            told.append((rung, score))
        goes_on = rule.goes_on(assignment.seed, rung, score, assignment.widths)
        return goes_on or assignment.origin != "controller"

    def end(self, piece: WorkItem, ending: Ending) -> None:
        """See `Source.end`."""
        about = {"rungs": self.rule is not None, "partial": tuple(self._partial.pop(piece.key, ()))}
        self._session.tell(self._assignments.pop(piece.key), _outcome(ending, **about))
        _forget(self._states, piece.key)


@final
class _Pieces(Source):
    """A list of pieces."""

    def __init__(self, pieces: Sequence[Any], what: str, states: States) -> None:
        keys = [_key(what, piece) for piece in pieces]
        self._pieces = [
            WorkItem(f"{key}-{keys[:i].count(key)}", pack(piece, "a training"), False)
            for i, (key, piece) in enumerate(zip(keys, pieces, strict=True))
        ]
        self._positions = {piece.key: position for position, piece in enumerate(self._pieces)}
        self._left = iter(self._pieces)
        self._states = states
        self.counter: Counter = queue.SimpleQueue()

    def take(self) -> WorkItem | None:
        """See `Source.take`."""
        return next(self._left, None)

    def end(self, piece: WorkItem, ending: Ending) -> None:
        """See `Source.end`."""
        self.counter.put((self._positions[piece.key], ending))
        _forget(self._states, piece.key)


def _outcome(ending: Ending, **about: Any) -> Outcome:
    """Of an evaluation."""
    if ending.result is None:
        return Outcome(None, ending.error, ending.seconds, **about)
    fidelity = ending.share / 100
    return Outcome.of(ending.result, seconds=ending.seconds, pruned=ending.pruned, fidelity=fidelity, **about)


def _machines() -> set[str]:
    return {node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}


def states_folder(storage_path: str | None, directory: Path) -> str:
    """Where the states of a run's trainings lie: in it, or below the storage path in a folder named by the run's id."""
    if storage_path is None:
        return str(directory.absolute() / "states")
    known = read_run(directory) if has_begun(directory) else {}
    return f"{storage_path.rstrip('/')}/{known.get('id', directory.name)}"


def _key(what: str, piece: Any) -> str:
    return hashlib.sha256(f"{what} {piece!r}".encode()).hexdigest()[:24]


def _forget(states: States, key: str) -> None:
    with suppress(Exception):  # the storage does not answer: a file too many harms nobody
        states.delete(key)


def _next(counter: Counter, check: Callable[[], None]) -> tuple[int, Ending] | None:
    """The next one; waits in short steps, as Ctrl-C does not get through a long wait, and checks between them."""
    while True:
        try:
            return counter.get(timeout=_GLANCE)
        except queue.Empty:
            check()


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, Tune neither prints nor keeps notes that nobody reads; its settings are as before afterwards."""
    before = {name: os.environ.get(name) for name in _QUIET}
    logger = logging.getLogger("ray.tune")
    level = logger.level
    os.environ.update(_QUIET)
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
