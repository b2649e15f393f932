"""Why a worker of Ray Tune failed, read from the text that Tune wrote down; its pickle, which may run code, is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError, RayTaskError

from autoprune.engines.ray.tune_worker import Outgrown

_FAILURE = re.compile(r"^Failure # \d+ \(occurred at [^)\n]*\)\n", re.MULTILINE)
_OUTGROWN = re.compile(
    rf"^{re.escape(Outgrown.__module__)}\.{Outgrown.__name__}: (?P<why>.*)", re.MULTILINE | re.DOTALL
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CREATION = "The actor died because of an error raised in its creation task"
_LOST = re.compile(r"The actor (?:died|experienced an error|\w+ is unavailable)")


def error_of(trial: Any) -> BaseException:
    """The last error of a trial of Tune's, as what it was; Tune forgets that there is a pickle of it."""
    pickled = trial.run_metadata.pickled_error_filename is not None  # of errors of workers alone
    trial.run_metadata.pickled_error_filename = None
    try:
        text = Path(trial.error_file).read_text(errors="replace") if trial.error_file else ""
    except OSError:
        text = ""
    return understood(text, of_worker=pickled)


def understood(text: str, *, of_worker: bool) -> BaseException:
    """The error that a file of Tune's tells of.

    Args:
        text: of the file; the last failure counts.
        of_worker: it came from a worker; False: from Tune itself.
    """
    told = _COLOUR.sub("", _FAILURE.split(text)[-1]).strip()
    if not of_worker:
        return RuntimeError(told or "the worker failed")
    if _LOST.match(told):
        lost: BaseException = RayActorError(error_msg=told, actor_init_failed=told.startswith(_CREATION))
        return lost
    outgrown = _OUTGROWN.search(told)
    if outgrown is not None:
        return Outgrown(outgrown["why"].strip())
    failed: BaseException = RayTaskError("a training", told or "the worker failed", None)
    return failed
