"""Signals that end a process: raised once, left alone where they are the caller's, and told with the exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from autoprune.signals import Terminated, ended_by_signals, exit_code, interruption, stopped_in, terminable


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    """Tests that call `ray.init` leave a handler of Ray in this process."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_raised_and_a_second_one_does_not_break_the_closing(number: int) -> None:
    closed = []

    def work() -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(signal.SIGTERM)
            closed.append(True)

    with pytest.raises(Terminated) as caught, terminable():
        work()
    assert closed
    assert exit_code(caught.value) == 128 + number
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_signal_that_the_caller_ignores_or_handles_stays_his() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    hup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminable():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGHUP, hup)
    assert came == [signal.SIGTERM]


def test_the_handler_that_ray_leaves_behind_is_not_the_callers() -> None:
    def handler(number: int, frame: FrameType | None) -> None:
        raise SystemExit(1)

    handler.__module__ = "ray._private.worker"
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(Terminated), terminable():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_library_that_makes_a_plain_interrupt_of_it_does_not_hide_the_signal(tmp_path: Path) -> None:
    def library() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            new = KeyboardInterrupt()
        stopped_in(tmp_path, new)
        raise new

    with pytest.raises(Terminated) as caught, terminable():
        library()
    assert caught.value.number == signal.SIGTERM
    assert caught.value.directory == tmp_path


def test_an_interrupt_is_found_behind_the_errors_of_a_clean_up() -> None:
    error = ValueError("the lock is gone")
    error.__context__ = KeyboardInterrupt()
    assert interruption(error) is error.__context__
    assert interruption(ValueError()) is None
    assert exit_code(KeyboardInterrupt()) == 130


SCRIPT = """
import os, pathlib, signal
from autoprune.signals import ended_by_signals
from autoprune.trials.run_directory import RunDirectory

@ended_by_signals
def work():
    with RunDirectory.create(pathlib.Path("my run")) as directory:
        directory.update_run(id="x")
        signal.raise_signal(signal.SIGTERM)

work()
"""


def test_a_script_ends_with_the_code_of_the_signal_and_how_to_go_on(tmp_path: Path) -> None:
    given = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, env=given, capture_output=True, text=True)
    assert ended.returncode == 143
    assert "stopped by SIGTERM; every ended trial is on disk: " in ended.stderr
    assert "run_dir='my run' and resume=True" in ended.stderr
    assert "`autoprune resume 'my run'`" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_is_not_a_signal_passes() -> None:
    @ended_by_signals
    def fails() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
