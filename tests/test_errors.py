from __future__ import annotations

import json
import re
import traceback
from collections.abc import Callable

import pytest
import torch

from autoprune.errors import ConfigError, DataError, EvaluationError, blame, told_of_traceback
from autoprune.files import write_whole


def fail(error: Exception) -> None:
    raise error


def test_a_users_error_is_told_once_with_type_text_and_place() -> None:
    line = fail.__code__.co_firstlineno + 1
    with pytest.raises(ConfigError) as caught, blame(ConfigError, "the part fails", then="Mend it."):
        fail(ValueError("first\nlast."))
    assert str(caught.value) == f"the part fails: ValueError: first last ({__file__}:{line}). Mend it."
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_place_is_the_users_own_line_not_the_librarys_below_it() -> None:
    line = test_the_place_is_the_users_own_line_not_the_librarys_below_it.__code__.co_firstlineno + 3
    with pytest.raises(ConfigError, match=rf"JSONDecodeError: .*test_errors\.py:{line}\)\.$"), blame(ConfigError, "x"):
        json.loads("{")


def test_an_error_without_a_message_is_told_by_its_type() -> None:
    with pytest.raises(ConfigError, match=r"^x: MemoryError \("), blame(ConfigError, "x"):
        fail(MemoryError())


def test_our_own_errors_and_interrupts_pass() -> None:
    for error in (DataError("as it was"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, blame(ConfigError, "x"):
            raise error
        assert caught.value is error


class OwnError(BaseException):
    pass


@pytest.mark.parametrize("error", [SystemExit(3), SystemExit("no data"), OwnError("x"), StopIteration("x")])
def test_what_is_no_exception_of_the_usual_kind_is_told_as_well(error: BaseException) -> None:
    with pytest.raises(ConfigError, match=rf"^x: {type(error).__name__}: {error} \("), blame(ConfigError, "x"):
        raise error


def test_an_exit_that_came_of_an_interrupt_stays_one() -> None:
    def leave() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1) from None

    with pytest.raises(SystemExit), blame(ConfigError, "x"):
        leave()


def test_an_error_of_another_process_is_told_by_its_own_last_line_and_place() -> None:
    carried = (
        "Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        f'  File "{torch.__file__}", line 3, in fetch\n    fetch()\n  File "/home/u/mine.py", line 7, in __getitem__\n'
        "    read()\nOSError: disk gone\n"
    )
    with (
        pytest.raises(DataError, match=r"^train: OSError: disk gone \(/home/u/mine\.py:7\)\.$"),
        blame(DataError, "train"),
    ):
        raise OSError(carried)
    assert told_of_traceback(carried) == "OSError: disk gone (/home/u/mine.py:7)"
    assert told_of_traceback("") == ""


def test_of_a_phase_only_what_the_users_code_raised_is_made_a_message() -> None:
    with (
        pytest.raises(EvaluationError, match=r"^ValueError: x \(.*test_errors\.py:\d+\); so it ended\. Mend it\.$"),
        blame(EvaluationError, "so it ended", then="Mend it.", only_users=True),
    ):
        fail(ValueError("x"))
    with pytest.raises(AttributeError), blame(EvaluationError, "x", only_users=True):
        write_whole(None, b"")  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match=r"^MemoryError"), blame(EvaluationError, "x", only_users=True):
        raise MemoryError


def broken_over_lines() -> None:
    raise ValueError("one\n  two\nthree")


def broken_in_a_group() -> None:
    raise ExceptionGroup("several", [ValueError("x"), KeyError("y")])


def broken_by_another() -> None:
    try:
        broken_over_lines()
    except ValueError as error:
        raise RuntimeError("outer") from error


def broken_with_a_note() -> None:
    error = OSError("no disk")
    error.add_note("mount it")
    raise error


def broken_without_a_word() -> None:
    raise AssertionError


def broken_as_ours() -> None:
    raise EvaluationError("it broke\nhere.")


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (broken_over_lines, "ValueError: one two three (HERE)"),
        (broken_in_a_group, "ExceptionGroup: several (2 sub-exceptions) (HERE)"),
        (broken_by_another, "RuntimeError: outer (HERE)"),
        (broken_with_a_note, "OSError: no disk mount it (HERE)"),
        (broken_without_a_word, "AssertionError (HERE)"),
        (broken_as_ours, "it broke here"),
    ],
)
def test_a_traceback_is_told_by_the_whole_of_its_error(broken: Callable[[], None], told: str) -> None:
    try:
        broken()
    except Exception:  # noqa: BLE001 - of any kind
        text = traceback.format_exc()
    found = told_of_traceback(text)
    assert re.sub(rf"{re.escape(__file__)}:\d+", "HERE", found) == told
