from __future__ import annotations

import json

import pytest

from autoprune.errors import ConfigError, DataError, blame


def fail(error: Exception) -> None:
    raise error


def test_a_users_error_is_told_once_with_type_last_line_and_place() -> None:
    line = fail.__code__.co_firstlineno + 1
    with pytest.raises(ConfigError) as caught, blame(ConfigError, "the part fails", then="Mend it."):
        fail(ValueError("first\nlast."))
    assert str(caught.value) == f"the part fails: ValueError: last ({__file__}:{line}). Mend it."
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
