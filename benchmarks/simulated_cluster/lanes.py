"""Both lanes of the Ray engine, and the peer, on work that only sleeps."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search.optuna import OptunaSearch
from simulated_cluster.clock import DOMAIN, Clock, Row, TimedSession
from simulated_cluster.work import Dormitory, Nap

from autoprune.config.engine import EngineOptions
from autoprune.engines.ray import tune as ray_tune
from autoprune.engines.ray.actors import ActorLane
from autoprune.engines.ray.cluster import Cluster
from autoprune.engines.ray.tune_feed import Dispatcher, Source, TuneSearcher, WorkerMonitor
from autoprune.engines.ray.tune_worker import Ending, WorkItem
from autoprune.trials.assignment import Assignment, Outcome

PROCESSES = 8
"""In which the workers of the lane of short evaluations sleep."""
_SLOT = 0.001
"""Logical CPUs of a worker."""


def on_actors(workers: int, seconds: float, controller: str, seed: int) -> list[Row]:
    """The lane of short evaluations; a few processes stand for all workers."""
    with _folder() as folder:
        rooms = _Rooms(folder, min(workers, PROCESSES), seconds)
        cluster = _cluster(workers)
        cluster.workers = 0  # the lane hires none by itself
        lane = ActorLane(cluster, None, folder)
        lane._actor = rooms
        lane._members = [lane._hire() for _ in range(workers)]
        ray.get([member.reference for member in lane._members])
        clock = Clock(folder, [seconds])
        clock.start()
        lane.search(TimedSession(controller, clock, seed))  # type: ignore[arg-type]
        lane.close()
        return clock.rows("actors", controller, workers)


def on_tune(workers: int, phases: Sequence[float], controller: str | None, seed: int) -> list[Row]:
    """The lane of trainings, with a process for each worker; no controller: the peer."""
    with _folder() as folder, ray_tune._quiet():
        clock = Clock(folder, phases)
        if controller is None:
            space = {f"w{i}": tune.randint(1, group.width + 1) for i, group in enumerate(DOMAIN.space.groups)}
            search: Any = OptunaSearch(space, metric="score", mode="max", seed=seed)
            watching: Any = _Counting(clock)
        else:
            source = _Proposals(TimedSession(controller, clock, seed))
            dispatcher = Dispatcher(source, _cluster(workers))
            search, watching = _PlainFeed(dispatcher, source), WorkerMonitor(dispatcher)
        tune.Tuner(
            tune.with_resources(Nap, {"cpu": _SLOT}),
            param_space={"folder": str(folder), "groups": len(DOMAIN.space.groups)},
            tune_config=tune.TuneConfig(
                search_alg=search, num_samples=-1, max_concurrent_trials=workers, reuse_actors=True
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder),
                stop=watching,
                callbacks=[watching, _Opening(clock, workers)],
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
        if controller is None:
            return clock.rows("peer", "OptunaSearch", workers, session=False)
        return clock.rows("tune", controller, workers)


class _Rooms:
    """Gives out a few actors in turns, as if each were a new one."""

    def __init__(self, folder: Path, n: int, seconds: float) -> None:
        self._actors, self._given = [Dormitory.remote(folder, seconds) for _ in range(n)], 0
        ray.get([actor.start.remote(None, "cpu") for actor in self._actors])

    def options(self, **_: Any) -> _Rooms:
        return self

    def remote(self) -> Any:
        self._given += 1
        return self._actors[self._given % len(self._actors)]


class _Proposals(Source):
    """Proposals of a session, as the lane of trainings has them."""

    def __init__(self, session: TimedSession) -> None:
        self._session = session
        self.out: dict[str, Assignment] = {}

    def take(self) -> WorkItem | None:
        assignment = self._session.ask()
        if assignment is None:
            return None
        self.out[str(assignment.number)] = assignment
        return WorkItem(str(assignment.number), b"", False)

    def end(self, piece: WorkItem, ending: Ending) -> None:
        self._session.tell(self.out.pop(piece.key), Outcome(ending.result, ending.error, ending.seconds))


class _PlainFeed(TuneSearcher):  # type: ignore[misc]
    """A feed whose pieces are plain numbers, so that workers need not import autoprune."""

    def __init__(self, dispatcher: Dispatcher, source: _Proposals) -> None:
        super().__init__(dispatcher)
        self._proposals = source.out

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        found = super().suggest(trial_id)
        if not isinstance(found, dict):
            return found
        return {f"w{i}": width for i, width in enumerate(self._proposals[found["piece"].key].widths)}

    def __reduce__(self) -> tuple[Any, ...]:
        return str, ()  # Tune writes its arguments down


class _Opening(tune.Callback):  # type: ignore[misc]
    """Lets the workers begin when all are there."""

    def __init__(self, clock: Clock, workers: int) -> None:
        self._clock, self._missing = clock, workers

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._missing -= 1
        if not self._missing:
            self._clock.start()
            (self._clock.folder / "all are here").touch()


class _Counting(tune.Callback, tune.Stopper):  # type: ignore[misc]
    """Clock of the peer; nothing of ours decides anything in its runs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._clock.trials += 1
        self._clock.tick()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._clock.over


def _cluster(workers: int) -> Cluster:
    made = Cluster(EngineOptions(name="ray", workers=workers, cpus_per_worker=_SLOT))
    made.open()
    return made


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="scaling-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
