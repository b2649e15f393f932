"""Rows in files of JSON lines, written as they come; several processes work on one file each."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, final

Row = TypeVar("Row")


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file; a last line that was cut short is left out."""
    if path.exists():
        yield from (json.loads(line) for line in path.read_text().splitlines() if line.endswith("}"))


@final
class Appended:
    """A file that rows are added to.

    Args:
        path: the file; it may be there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        self._torn = bool(text) and not text.endswith("\n")

    def add(self, row: Any) -> None:
        """Write one dataclass as a line."""
        with self._path.open("a") as file:
            file.write("\n" * self._torn + json.dumps(dataclasses.asdict(row)) + "\n")
        self._torn = False
