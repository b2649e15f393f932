"""The Ray engine: short evaluations go to resident actors, trainings through Ray Tune; both drive the same session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar, final

import numpy as np
import ray
from ray.exceptions import RayError

from autoprune.config.engine import EngineOptions
from autoprune.engines.base import Engine, Failure, Scoring, WorkerSetup
from autoprune.engines.ray.actors import ActorLane
from autoprune.engines.ray.cluster import Cluster, short_reason
from autoprune.engines.ray.packing import pack_setup
from autoprune.engines.ray.tune import TuneLane
from autoprune.errors import RunError
from autoprune.trials.assignment import Outcome
from autoprune.trials.session import SearchSession

P = TypeVar("P")
R = TypeVar("R")
L = TypeVar("L", ActorLane, TuneLane)


@final
class RayEngine(Engine):
    """Workers on a Ray cluster.

    Args:
        options: of the engine.
        device: of the run's task.

    Raises:
        ConfigError: the options contradict each other or the device.
    """

    def __init__(self, options: EngineOptions, *, device: str = "cpu") -> None:
        self._cluster = Cluster(options, device=device)
        self._setup: WorkerSetup | None = None
        self._packed: Any = None
        self._lane: ActorLane | TuneLane | None = None

    def open(self) -> Self:
        """See `Engine.open`."""
        self._cluster.open()
        return self

    def equip(self, setup: WorkerSetup, note: Callable[[str], None] = lambda line: None) -> None:
        """See `Engine.equip`."""
        self._cluster.check_node(at_once=True)  # the driver may have trained for hours without a word to Ray
        self._leave_lane()
        self._cluster.note, self._cluster.stopping = note, setup.stopping
        self._setup, self._cluster.directory = setup, setup.directory
        packed = np.frombuffer(pack_setup(setup), np.uint8)  # workers read arrays where they lie, bytes as copies
        try:
            self._packed = ray.put(packed)
        except (RayError, OSError, MemoryError) as error:
            self._cluster.check_node(at_once=True)
            raise RunError(
                f"engine: network and data of this run are {packed.nbytes / 1e6:,.0f} MB, which Ray's object store "
                f"cannot take ({short_reason(error)}). Free room on its disk and in /dev/shm, start Ray with more "
                f"(`ray start --object-store-memory`), or load the data in the workers (data: module:function)"
            ) from error

    def search(self, session: SearchSession) -> None:
        """See `Engine.search`."""
        self._evaluations().search(session)

    def score(self, pieces: Sequence[Scoring]) -> Iterator[tuple[int, Outcome]]:
        """See `Engine.score`."""
        if pieces:
            yield from self._evaluations().score(pieces)

    def train(self, work: Callable[..., R], pieces: Sequence[P]) -> Iterator[tuple[int, R | Failure]]:
        """See `Engine.train`."""
        if pieces:
            yield from self._on(TuneLane).train(work, pieces)

    @property
    def workers(self) -> int:
        """See `Engine.workers`."""
        return self._cluster.workers

    @property
    def busy(self) -> int:
        """See `Engine.busy`."""
        return self._lane.busy if self._lane else 0

    def record(self) -> dict[str, Any]:
        """See `Engine.record`."""
        return {"name": "ray", "workers": self.workers, **self._cluster.happened}

    def close(self) -> None:
        """See `Engine.close`."""
        self._leave_lane()
        self._cluster.close()

    @property
    def _equipped(self) -> WorkerSetup:
        if self._setup is None:
            raise RuntimeError("an engine is equipped before it works")
        return self._setup

    def _evaluations(self) -> ActorLane | TuneLane:
        return self._on(ActorLane) if self._equipped.kind == "short" else self._on(TuneLane)

    def _on(self, lane: type[L]) -> L:
        """The lane of this kind; the other one gives its workers back first."""
        self._cluster.check_node(at_once=True)
        if not isinstance(self._lane, lane):
            self._leave_lane()
            self._lane = lane(self._cluster, self._packed, self._equipped.directory)
        return self._lane

    def _leave_lane(self) -> None:
        if self._lane is not None:
            self._lane.close()
            self._lane = None
