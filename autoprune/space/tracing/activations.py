"""How long eager PyTorch holds a value: the frames of Python that hold it, told from the traced calls.

A value that enters a module call is held by the caller until that call returns. One that is made in one statement and
read in another lies in a local variable, which is let go when the later statement ends at the earliest (`x = f(g(x))`
holds the old `x` while `f` runs). That a variable may outlive its last use is not seen.
"""

from __future__ import annotations

import ast
import linecache
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TypeAlias, final

from torch import fx

Frame: TypeAlias = tuple[str, str, int]
"""File, function, first line of the statement."""

_FRAME = re.compile(r'File "(.+?)", line (\d+), in (\S+)')


@final
class Frames:
    """The Python frames of the calls of a graph.

    Args:
        calls: the graph's operator calls, in order.
    """

    def __init__(self, calls: Sequence[fx.Node]) -> None:
        self._traces = [_trace(node) for node in calls]
        self._modules = [frozenset(module_calls(node)) for node in calls]
        self._ends: dict[str, int] = {key: number for number, keys in enumerate(self._modules) for key in keys}

    def held(self, made: int | None, read: int) -> int:
        """The last call during which a value is held, as far as one that reads it can tell.

        Args:
            made: the call that makes it; None for an input.
            read: the call that reads it.
        """
        entered = self._modules[read] - (self._modules[made] if made is not None else frozenset())
        last = max([read, *(self._ends[key] for key in entered)])
        return last if made is None else max(last, self._end_of_statement(made, read))

    def _end_of_statement(self, made: int, read: int) -> int:
        one, other = self._traces[made], self._traces[read]
        depth = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
        if depth is None or one[depth][:2] != other[depth][:2]:
            return read  # of one statement: a temporary
        statement, last = other[: depth + 1], read
        while last + 1 < len(self._traces) and self._traces[last + 1][: depth + 1] == statement:
            last += 1
        return last


def module_calls(node: fx.Node) -> Mapping[str, str]:
    """Key of every module call that was running, the outermost first -> path of the module; each call has its own."""
    return {key: path for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items()}


def _trace(node: fx.Node) -> tuple[Frame, ...]:
    text = node.meta.get("stack_trace") or ""
    return tuple((file, function, _statement(file, int(line))) for file, line, function in _FRAME.findall(text))


def _statement(file: str, line: int) -> int:
    """First line of the statement that this line belongs to."""
    return _statements(file).get(line, line)


@cache
def _statements(file: str) -> Mapping[int, int]:
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:  # no file of Python, or one that has changed
        return {}
    return dict(_lines(tree))


def _lines(tree: ast.AST) -> Iterator[tuple[int, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and not hasattr(node, "body"):
            yield from ((line, node.lineno) for line in range(node.lineno, (node.end_lineno or node.lineno) + 1))
