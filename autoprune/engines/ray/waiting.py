"""A run without any worker: what is waited for is said, and said again, until its patience ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, final

import ray

from autoprune.errors import RunError

QUIET = 30.0
"""Seconds without any worker that are not worth a word: one starts in fewer."""

AGAIN = 300.0
"""Seconds from one word about it to the next."""


@final
class Waiting:
    """Looks at whether there are workers.

    Args:
        needed: what each worker takes: resource -> how much.
        patience: seconds without any after which the run is given up.
        note: told in a line.
        quiet, again: seconds until the first word, and from each to the next.
    """

    def __init__(
        self,
        needed: Mapping[str, float],
        patience: float,
        note: Callable[[str], None],
        *,
        quiet: float = QUIET,
        again: float = AGAIN,
    ) -> None:
        self._needed, self._patience, self._note = needed, patience, note
        self._quiet, self._again = min(quiet, patience / 2), again
        self.seen()

    def seen(self) -> None:
        """There is a worker, or nothing for one to do."""
        self._since = time.monotonic()
        self._next = self._quiet

    def check(self) -> None:
        """There is none: tell where it is time to.

        Raises:
            RunError: there has been none for too long.
        """
        alone = time.monotonic() - self._since
        if alone > self._patience:
            raise RunError(
                f"the cluster has had no room for a worker for {_time(alone)}: {told(self._needed)}. Every ended trial "
                f"is on disk: add nodes or ask for less per worker, then resume the run; engine: wait_for_workers "
                f"says how long to wait"
            )
        if alone > self._next:
            self._next = alone + self._again
            left = _time(self._patience - alone)
            self._note(
                f"waiting for a worker for {_time(alone)}: {told(self._needed)}; without one the run ends in {left}"
            )


def told(needed: Mapping[str, float]) -> str:
    """What a worker needs, what is free, and on which nodes; what cannot be asked for is left out."""
    asked = f"each needs {amounts(needed) or 'no resources'}"
    with suppress(Exception):  # the cluster does not answer, about which others have their say
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        free, there = ray.available_resources(), ray.cluster_resources()
        held = ", ".join(f"{name} {free.get(name, 0):g} of {there.get(name, 0):g}" for name in needed)
        count = f"{len(nodes)} node{'s' * (len(nodes) != 1)}"
        return f"{asked}; free on {count}: {held or 'not asked for'}{_why(needed, nodes, free)}"
    return asked


def amounts(resources: Mapping[str, float]) -> str:
    """As `CPU 1, spot 2`."""
    return ", ".join(f"{name} {share:g}" for name, share in resources.items())


def _why(needed: Mapping[str, float], nodes: Sequence[Mapping[str, Any]], free: Mapping[str, float]) -> str:
    if not any(all(node.get(name, 0) >= share for name, share in needed.items()) for node in nodes):
        return " (no node has so much)"
    if any(free.get(name, 0) < share for name, share in needed.items()):
        return " (taken by other work, or by workers that start)"
    return " (there is room: it takes long to start)"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes"
