"""The Ray instance of a run: reached or started, what its nodes hold, and what happens to workers there."""

from __future__ import annotations

import contextlib
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import ray

from autoprune.config.engine import EngineOptions
from autoprune.config.stopping import NEVER, StoppingOptions
from autoprune.engines.ray.connection import check_resources, reach, start, told_as_notes
from autoprune.engines.ray.node_watch import NodeWatch
from autoprune.engines.ray.waiting import Waiting, amounts
from autoprune.errors import ConfigError, EngineLostError, EvaluationError, told_of_traceback
from autoprune.evaluators.rungs import Rungs
from autoprune.trials.run_directory import check_there


@final
class Cluster:
    """One Ray instance, opened and closed with the engine.

    Args:
        options: of the engine.
        device: of the run's task, "cpu" or "cuda…".

    Attributes:
        options: of the engine.
        stopping: when evaluations are ended before their time, of the run that it works for.
        happened: "lost_workers", "timed_out", "out_of_memory" and "retried", each a count.
        note: told in a line what happens to workers.
        directory: of the run that it works for.
    """

    def __init__(self, options: EngineOptions, *, device: str = "cpu") -> None:
        self.options = options
        self.stopping: StoppingOptions = NEVER
        self.rungs: Rungs | None = None
        self.happened: Counter[str] = Counter()
        self.note: Callable[[str], None] = lambda line: None
        self.directory: Path | None = None
        self._gpus = options.gpus_per_worker if options.gpus_per_worker is not None else float(device != "cpu")
        if device == "cpu" and self._gpus:
            raise ConfigError(f"engine: gpus_per_worker is {self._gpus:g} but the device is cpu; set device: cuda")
        check_resources(options.resources)
        self._undo = contextlib.ExitStack()  # leaves the instance where this has come to it
        self._watch: NodeWatch | None = None
        self.workers = 0

    def open(self) -> None:
        """Reach the instance at the address, or start one; find out how many workers it holds.

        Raises:
            ConfigError: nothing answers there, or no worker finds room.
        """
        address, theirs = self.options.address, ray.is_initialized()  # the caller's own, or that of the test
        alone = address in (None, "local") and not theirs
        with contextlib.ExitStack() as undo:
            if not theirs:
                undo.callback(ray.shutdown)
                start(self.options) if address is None or alone else reach(address)  # "local" is no address
            self.workers = self._room(grows=not alone)
            self._watch = NodeWatch(owns_head=alone)
            undo.enter_context(told_as_notes(lambda line: self.note(line)))
            self._undo = undo.pop_all()

    def close(self) -> None:
        """Leave the instance; one of our own ends."""
        self._watch = None
        self._undo.close()

    def check_node(self, *, at_once: bool = False) -> None:
        """Find out that Ray has ended before it takes this process along, or that the run has no directory any more.

        Args:
            at_once: look although somebody has looked a moment ago.

        Raises:
            RunError: one of them is gone.
        """
        if self._watch is not None and self._watch.check(at_once=at_once) and self.directory is not None:
            check_there(self.directory)

    @property
    def ended(self) -> bool:
        """Whether Ray is gone: what is still asked of it would be waited for, and take this process along."""
        try:
            return self._watch is not None and not self._watch.check(at_once=True)
        except EngineLostError:
            return True

    @property
    def per_worker(self) -> dict[str, Any]:
        """What each worker takes, as options of a Ray actor or resources of a Tune trial."""
        return {"num_cpus": self.options.cpus_per_worker, "num_gpus": self._gpus, "resources": self.options.resources}

    @property
    def device(self) -> str:
        """Where workers compute."""
        return "cuda" if self._gpus else "cpu"

    def lost(self, why: str) -> None:
        """Count a worker that died, and tell."""
        self.happened["lost_workers"] += 1
        self.note(f"a worker was lost: {why}")

    def waiting(self) -> Waiting:
        """What looks at whether there are workers, from now on."""
        return Waiting(self._needed(), self.options.wait_for_workers, lambda line: self.note(line))

    def _needed(self) -> dict[str, float]:
        """What a worker takes: resource -> how much."""
        needed = {"CPU": self.options.cpus_per_worker, "GPU": self._gpus, **self.options.resources}
        return {name: share for name, share in needed.items() if share}

    def _room(self, *, grows: bool) -> int:
        """How many workers to make; where the instance may grow, an autoscaler may still bring the nodes for them."""
        needed = self._needed()
        if self.options.workers is not None and (grows or not needed):
            return self.options.workers
        if not needed:
            raise ConfigError("engine: workers that take no resources need a number: set workers")
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(_holds(node, needed) for node in nodes)
        if not room:
            held = "; ".join(amounts({name: node.get(name, 0) for name in needed}) for node in nodes)
            raise ConfigError(
                f"engine: a worker needs {amounts(needed)}, but no node of the cluster has that (they have {held}). "
                f"Lower cpus_per_worker, gpus_per_worker or resources, or set workers where an autoscaler adds nodes"
            )
        return room if self.options.workers is None else self.options.workers


def run_name(directory: Path) -> str:
    """What workers of a run are called by: its directory, in a family with that of the family."""
    directory = directory.absolute()
    family = (directory.parent / "run.json").is_file()
    return f"{directory.parent.name}/{directory.name}" if family else directory.name


def _holds(node: Mapping[str, float], needed: Mapping[str, float]) -> int:
    return min(math.floor(node.get(name, 0.0) / share + 1e-9) for name, share in needed.items())


def short_reason(error: BaseException) -> str:
    """What ray says about a death, in one line without its advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if "node" in line.lower() and "dead" in line.lower()), None)
    line = told or next((line for line in lines if "exit" in line or "died" in line), "") or type(error).__name__
    return line.partition(" Some common causes")[0]


def start_failed(traceback: str) -> EvaluationError:
    """The error of workers that cannot begin, given what one of them has raised."""
    return EvaluationError(
        f"{told_of_traceback(traceback)}; workers cannot build the evaluator. Correct the cause, or install on their "
        f"machines what it needs, then resume the run"
    )


def own_memory() -> int:
    """Bytes of memory that this process shares with no other one, on Linux."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
