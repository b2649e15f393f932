"""The Ray instance of a run: reached or started, what its nodes hold, and what happens to workers there."""

from __future__ import annotations

import contextlib
import math
import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import ray

from autoprune.config.engine import EngineOptions
from autoprune.config.stopping import NEVER, StoppingOptions
from autoprune.errors import ConfigError

_PATIENCE = 5.0
"""Seconds that an address has to answer; ray itself would wait for minutes."""


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
    """

    def __init__(self, options: EngineOptions, *, device: str = "cpu") -> None:
        self.options = options
        self.stopping: StoppingOptions = NEVER
        self.happened: Counter[str] = Counter()
        self.note: Callable[[str], None] = lambda line: None
        self._gpus = options.gpus_per_worker if options.gpus_per_worker is not None else float(device != "cpu")
        if device == "cpu" and self._gpus:
            raise ConfigError(f"engine: gpus_per_worker is {self._gpus:g} but the device is cpu; set device: cuda")
        self._ours = False  # whether closing ends the connection
        self.workers = 0

    def open(self) -> None:
        """Reach the instance at the address, or start one; find out how many workers it holds.

        Raises:
            ConfigError: nothing answers there, or no worker finds room.
        """
        if not ray.is_initialized():
            address = self.options.address
            _check_answers(address)
            with contextlib.ExitStack() as undo:
                undo.callback(ray.shutdown)
                self._start() if address is None else self._reach(address)
                self.workers = self._room()
                undo.pop_all()
            self._ours = True
        else:  # the caller's own, or that of the test
            self.workers = self._room()

    def close(self) -> None:
        """Leave the instance; one of our own ends."""
        if self._ours:
            ray.shutdown()
            self._ours = False

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

    def _start(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about this machine leaves it
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else each start warns
        cores, wanted = os.cpu_count() or 1, self.options.workers or 1
        ray.init(
            address="local",
            num_cpus=max(cores, math.ceil(wanted * self.options.cpus_per_worker)),
            resources={name: share * wanted for name, share in self.options.resources.items()} or None,
            dashboard_host=self.options.dashboard,
            log_to_driver=False,
            logging_level="ERROR",
        )

    def _reach(self, address: str) -> None:
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (Exception, SystemExit) as error:  # ray ends the process where the other side is no ray
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"engine: no Ray instance can be used at {address!r} ({type(error).__name__}: {reason}). Start one "
                f"with `ray start --head`, of the same versions of ray and Python, or leave address out for an own one"
            ) from error

    def _room(self) -> int:
        needed = {"CPU": self.options.cpus_per_worker, "GPU": self._gpus, **self.options.resources}
        needed = {name: share for name, share in needed.items() if share}
        if self.options.workers is not None:
            return self.options.workers  # an autoscaler may still bring their nodes
        if not needed:
            raise ConfigError("engine: workers that take no resources need a number: set workers")
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(_holds(node, needed) for node in nodes)
        if not room:
            asked = ", ".join(f"{name} {share:g}" for name, share in needed.items())
            held = "; ".join(", ".join(f"{name} {node.get(name, 0):g}" for name in needed) for node in nodes)
            raise ConfigError(
                f"engine: a worker needs {asked}, but no node of the cluster has that (they have {held}). Lower "
                f"cpus_per_worker, gpus_per_worker or resources, or set workers where an autoscaler adds nodes"
            )
        return room


def _holds(node: Mapping[str, float], needed: Mapping[str, float]) -> int:
    return min(math.floor(node.get(name, 0.0) / share + 1e-9) for name, share in needed.items())


def _check_answers(address: str | None) -> None:
    """Raise where the address is malformed or nothing listens there."""
    if address in (None, "auto", "local"):
        return
    assert address is not None
    if address.startswith("ray://"):
        raise ConfigError(
            f"engine: Ray Tune cannot be driven from outside a cluster, as {address!r} would; start the run on the "
            f"cluster (`ray job submit`, or on a node with --address auto)"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"engine: address {address!r} cannot be read; allowed: auto, HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"engine: nothing answers at {address!r} ({error}). Start Ray there with `ray start --head`, correct the "
            f"address, or leave it out for an instance of its own"
        ) from error


def short_reason(error: BaseException) -> str:
    """What ray says about a death, in one line without its advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if "node" in line.lower() and "dead" in line.lower()), None)
    line = told or next((line for line in lines if "exit" in line or "died" in line), "") or type(error).__name__
    return line.partition(" Some common causes")[0]


def own_memory() -> int:
    """Bytes of memory that this process shares with no other one, on Linux."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
