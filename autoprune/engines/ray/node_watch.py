"""Whether the node of the driver still answers: without it Ray ends the process at the next call, without a word."""

from __future__ import annotations

import socket
import time
from typing import TypeAlias, final

import ray

from autoprune.errors import EngineLostError

_EVERY = 0.5
"""Seconds between two looks."""

_TIMEOUT = 2.0
"""Seconds that a port has to accept; one that is only slow is alive."""

_HEAD_PATIENCE = 30.0
"""Seconds that the head of a cluster may be away, as it may be started again; Ray itself ends the process after 60."""

Place: TypeAlias = tuple[str, int]


@final
class NodeWatch:
    """Looks at the ports of the driver's own node and of the head; to be made while connected.

    Args:
        owns_head: the instance was started by this process, so that nobody starts its head again.
    """

    def __init__(self, *, owns_head: bool) -> None:
        context = ray.get_runtime_context()
        own = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
        self._node: Place = (own["NodeManagerAddress"], int(own["NodeManagerPort"]))
        host, _, port = context.gcs_address.rpartition(":")
        self._head: Place = (host.strip("[]"), int(port))
        self._patience = 0.0 if owns_head else _HEAD_PATIENCE
        self._looked = self._head_seen = time.monotonic()

    def check(self, *, at_once: bool = False) -> bool:
        """Raise where the node is gone; return whether it was time to look.

        Args:
            at_once: look although somebody has looked a moment ago.

        Raises:
            EngineLostError: the node, or the head, has ended.
        """
        now = time.monotonic()
        if not at_once and now - self._looked < _EVERY:
            return False
        self._looked = now
        if _gone(self._node):
            raise EngineLostError(_sentence("node of this process", self._node))
        if not _gone(self._head):
            self._head_seen = time.monotonic()
        elif now - self._head_seen >= self._patience:
            raise EngineLostError(_sentence("head of the cluster", self._head))
        return True


def _sentence(what: str, place: Place) -> str:
    return (
        f"Ray has ended: nothing answers any more at {place[0]}:{place[1]}, the {what}. Every ended trial is on disk: "
        f"start Ray again, unless the run starts its own, then resume the run"
    )


def _gone(place: Place) -> bool:
    """Whether the port is closed, also at a second look."""
    for pause in (0.0, 0.2):
        time.sleep(pause)
        try:
            socket.create_connection(place, timeout=_TIMEOUT).close()
        except ConnectionRefusedError:
            continue
        except OSError:  # it does not say that it is closed
            return False
        return False
    return True
