"""Snapshots of a controller: a long search that goes on does not compute all of its proposals again.

One file, replaced every so many trials. The ledger stays the truth: a snapshot counts only where its checksum, the
versions of what computes and the ledger's entries up to it are as they were; otherwise everything is replayed.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import scipy

from autoprune._version import __version__
from autoprune.controllers.base import Controller, Trial
from autoprune.errors import RunError
from autoprune.files import content_of, replace_file
from autoprune.trials.assignment import Assignment

SNAPSHOT = ".controller.json"
"""The file in the directory of a run."""

EVERY = 100
"""Trials from one snapshot to the next; so many are replayed in a second or two."""


@final
@dataclass(frozen=True, slots=True)
class ControllerSnapshot:
    """A controller as it was.

    Attributes:
        asked: how many proposals had been made.
        told: how many trials had been told.
        state: see `Controller.snapshot`.
    """

    asked: int
    told: int
    state: Any


@final
class Snapshots:
    """The file that holds the last snapshot.

    Args:
        path: of the file.
        every: trials from one to the next.
    """

    def __init__(self, path: Path, *, every: int = EVERY) -> None:
        self._path, self._every = path, every

    def write(self, controller: Controller, proposals: Sequence[Assignment], trials: Sequence[Trial]) -> None:
        """Keep a controller as it is now, where one is due and replaying it would take long.

        Args:
            controller: has made the proposals and been told the trials.
            proposals: all, in their order.
            trials: all that ended, in the order in which they were told.
        """
        if not trials or len(trials) % self._every:
            return
        state = controller.snapshot()
        if state is None:
            return
        content = {
            "by": _by(controller),
            "asked": len(proposals),
            "told": len(trials),
            "ledger": _digest(proposals, trials),
            "state": state,
        }
        with suppress(OSError):  # it only saves time
            replace_file(self._path, _sealed(json.dumps(content)))

    def read(
        self, controller: Controller, proposals: Sequence[Assignment], trials: Sequence[Trial]
    ) -> ControllerSnapshot | None:
        """The snapshot that belongs to a controller and a ledger, None where there is none.

        Args:
            controller: a fresh one.
            proposals: those of the ledger, in their order.
            trials: those of the ledger that ended, in the order in which they were told.
        """
        try:
            seal, _, text = content_of(self._path).decode().partition("\n")
            if _sealed(text).decode().partition("\n")[0] != seal:
                return None
            found = json.loads(text)
            asked, told, state = int(found["asked"]), int(found["told"]), found["state"]
        except (RunError, ValueError, OverflowError, TypeError, LookupError, RecursionError):
            return None
        if found.get("by") != _by(controller) or not (0 <= asked <= len(proposals) and 0 <= told <= len(trials)):
            return None
        if found.get("ledger") != _digest(proposals[:asked], trials[:told]):
            return None
        if any(one.told < told for one in proposals[asked:]):
            return None
        return ControllerSnapshot(asked, told, state)


def _by(controller: Controller) -> list[str]:
    """What computes: with another version of it the proposals of a replay may be others, which the replay tells."""
    kind = type(controller)
    versions = (__version__, platform.python_version(), np.__version__, scipy.__version__, platform.machine())
    return [f"{kind.__module__}.{kind.__qualname__}", *versions]


def _digest(proposals: Sequence[Assignment], trials: Sequence[Trial]) -> str:
    """Of all that a controller was asked and told."""
    asked = [(one.number, one.widths, one.origin, one.seed, one.told) for one in proposals]
    told = [(one.number, one.widths, str(one.state), one.score, one.fidelity, one.noise, one.partial) for one in trials]
    return hashlib.sha256(repr((asked, told)).encode()).hexdigest()


def _sealed(text: str) -> bytes:
    return f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}".encode()
