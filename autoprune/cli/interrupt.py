"""Ctrl-C while a run works: on a terminal the first one asks, a second one stops; elsewhere the first one stops."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

_QUESTION = (
    "\nCtrl-C: [f]inish now with the trials so far, [s]top and keep what there is, or [g]o on? (Ctrl-C again stops) "
)


@contextmanager
def asking(run_dir: Path, *, read: Callable[[], str] | None = None, stream: TextIO | None = None) -> Iterator[None]:
    """Inside, Ctrl-C asks what is meant, where somebody can answer; afterwards it does what it did before.

    Args:
        run_dir: of the run, or the family, that works.
        read: how an answer is read; from the terminal by default.
        stream: where it is asked; standard error by default.
    """
    shown = stream or sys.stderr
    somebody = read is not None or (sys.stdin is not None and sys.stdin.isatty() and shown.isatty())
    if not somebody or threading.current_thread() is not threading.main_thread():
        yield
        return
    before, place = signal.getsignal(signal.SIGINT), run_dir.absolute()  # what is called may change the current folder

    def interrupted(number: int, frame: FrameType | None) -> None:
        if not (place / "run.json").is_file():
            raise KeyboardInterrupt
        signal.signal(signal.SIGINT, signal.default_int_handler)
        answer = _answer(read or sys.stdin.readline, shown)
        if answer == "stop":
            raise KeyboardInterrupt
        signal.signal(signal.SIGINT, interrupted)
        if answer == "finish":
            shown.write(f"{_finish(place)}\n")

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _finish(run_dir: Path) -> str:
    """Ask for it, and what is told; nothing is raised into the work that was interrupted."""
    from autoprune.errors import AutopruneError
    from autoprune.trials.finishing import ask_to_finish

    try:
        ask_to_finish(run_dir)
    except AutopruneError as error:
        return f"it goes on, as it cannot be asked to finish: {error}"
    return "the search ends after the evaluations that run now; then verdict, report and export follow"


def _answer(read: Callable[[], str], stream: TextIO) -> str:
    """finish, stop or go on; no answer, as of a terminal that is gone, is stop."""
    from autoprune.progress.live import paused

    with paused():
        while True:
            stream.write(_QUESTION)
            stream.flush()
            given = read()
            for word in ("finish", "stop", "go on"):
                if given.strip() and word.startswith(given.strip().lower()):
                    return word
            if not given:
                return "stop"
