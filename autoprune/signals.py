"""SIGTERM and SIGHUP end a run as Ctrl-C does: everything is closed, and what follows says how to go on."""

from __future__ import annotations

import functools
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import ParamSpec, TypeVar, final

P = ParamSpec("P")
R = TypeVar("R")

_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@final
class Terminated(KeyboardInterrupt):
    """A signal that asks the process to end has come; whatever lets Ctrl-C pass lets it pass, too.

    Attributes:
        number: of the signal.
        directory: of the run that it has stopped; None where none was begun.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.directory: Path | None = None


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, the first such signal raises `Terminated` in the main thread, and others are let pass.

    A signal that the caller handles or ignores (`nohup`) stays as it is. The handler of SIGTERM that Ray leaves in a
    process that has called `ray.init` is not the caller's: it ends the process with code 1 and no word of the run.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDING}
    taken = {number: handler for number, handler in before.items() if handler == signal.SIG_DFL or _of_ray(handler)}
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:  # a second one must not break off the closing
            raise Terminated(number)

    for number in taken:
        signal.signal(number, end)
    try:
        yield
    except BaseException as error:
        stopped = interruption(error)
        if not came or stopped is None or isinstance(stopped, Terminated):
            raise
        told = Terminated(came[0])  # Ray makes a Ctrl-C of whatever a signal raises inside its calls
        told.directory = getattr(stopped, "directory", None)
        raise told from error
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


def _of_ray(handler: object) -> bool:
    return str(getattr(handler, "__module__", None)).partition(".")[0] == "ray"


def interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C or `Terminated` behind an error; a library's clean-up may have made another one of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def stopped_in(directory: Path, error: BaseException | None) -> None:
    """Note on an interruption which run it has stopped."""
    stopped = interruption(error)
    if stopped is not None:
        stopped.__dict__["directory"] = directory


def exit_code(error: KeyboardInterrupt) -> int:
    """What a shell gives for a process that the signal has ended."""
    return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)


def ended_by_signals(work: Callable[P, R]) -> Callable[P, R]:
    """For functions that a script calls: such a signal ends it with how to go on and the signal's exit code."""

    @functools.wraps(work)
    def ended(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with terminable():
                return work(*args, **kwargs)
        except BaseException as error:
            stopped = interruption(error)
            if not isinstance(stopped, Terminated):
                raise
            with suppress(OSError):  # the terminal is gone, which SIGHUP says
                sys.stderr.write(f"\nstopped by {stopped}; {_then(stopped.directory)}\n")
            raise SystemExit(exit_code(stopped)) from None

    return ended


def _then(directory: Path | None) -> str:
    if directory is None or not (directory / "run.json").is_file():
        return "nothing was written"
    return (
        f"every ended trial is on disk: the same call with run_dir={str(directory)!r} and resume=True goes on, or, for "
        f"a run from a job file, `autoprune resume {shlex.quote(str(directory))}`"
    )
