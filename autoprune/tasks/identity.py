"""What a function of the user's is, as text that a resumed run compares."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

_PLAIN = (int, float, complex, str, bytes, bool, type(None))


def function_identity(function: Callable[..., Any] | None) -> str:
    """What a function is, as text: its source, and the plain values among its defaults, closure and bound arguments.

    A resumed run compares it. Values that are not numbers, texts or collections of them count by their type only.
    """
    if isinstance(function, functools.partial):
        bound = [_plain(value) for value in (*function.args, *function.keywords.items())]
        return f"partial {function_identity(function.func)} {bound}"
    if inspect.ismethod(function):
        return f"{function_identity(function.__func__)} {_plain(vars(function.__self__))}"
    try:
        source = inspect.getsource(function if inspect.isroutine(function) else type(function))
    except (OSError, TypeError):  # typed into a prompt, or compiled
        source = getattr(function, "__qualname__", type(function).__qualname__)
    if not inspect.isfunction(function):
        return f"{source} {_plain(getattr(function, '__dict__', {}))}"
    cells = inspect.getclosurevars(function).nonlocals
    return f"{source} {_plain(cells)} {_plain(function.__defaults__)} {_plain(function.__kwdefaults__)}"


def _plain(value: object, *, depth: int = 3) -> object:
    """The value if it is a number, a text or a collection of them, to a few levels; else the name of its type."""
    if isinstance(value, _PLAIN):
        return value
    if depth and isinstance(value, Mapping):
        return {str(key): _plain(inner, depth=depth - 1) for key, inner in value.items()}
    if depth and isinstance(value, list | tuple):
        return [_plain(inner, depth=depth - 1) for inner in value]
    return type(value).__qualname__
