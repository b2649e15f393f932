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
        bound = [plain_values(value) for value in (*function.args, *function.keywords.items())]
        return f"partial {function_identity(function.func)} {bound}"
    if inspect.ismethod(function):
        return f"{function_identity(function.__func__)} {plain_values(vars(function.__self__))}"
    try:
        source = inspect.getsource(function if inspect.isroutine(function) else type(function))
    except (OSError, TypeError):  # typed into a prompt, or compiled
        source = getattr(function, "__qualname__", type(function).__qualname__)
    if not inspect.isfunction(function):
        return f"{source} {plain_values(getattr(function, '__dict__', {}))}"
    cells = inspect.getclosurevars(function).nonlocals
    defaults = f"{plain_values(function.__defaults__)} {plain_values(function.__kwdefaults__)}"
    return f"{source} {plain_values(cells)} {defaults}"


def plain_values(value: object, *, depth: int = 3) -> object:
    """The value if it is a number, a text or a collection of them, to a few levels; else the name of its type."""
    if isinstance(value, _PLAIN):
        return value
    if depth and isinstance(value, Mapping):
        return {str(key): plain_values(inner, depth=depth - 1) for key, inner in value.items()}
    if depth and isinstance(value, list | tuple):
        return [plain_values(inner, depth=depth - 1) for inner in value]
    return type(value).__qualname__
