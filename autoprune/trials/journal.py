"""The journal file of a ledger: a kill or a failed write leaves nothing half written behind, and no change is missed.

Every line ends with a sum over the line and all bytes before it, which Optuna passes over: a line that is missing,
doubled, swapped or changed is known by it (`mending.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from optuna.storages.journal import JournalFileBackend

_SUM = "sum"
_LENGTH = 16
_SUMMED = re.compile(rb'(.*),"sum":"([0-9a-f]{16})"\}\n', re.DOTALL)


@final
class Journal(JournalFileBackend):
    """A journal file in which a failed write leaves nothing, so that it can be repeated; there is one writer."""

    _whole: int | None = None  # length to cut the file to, where that has failed so far

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._chain, self._length = RunningSum(), 0

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write entries, all of them or none; raises OSError."""
        self._cut()
        length = Path(self._file_path).stat().st_size
        self._catch_up(length)
        chain = self._chain.copy()
        summed = [{**log, _SUM: chain.add(log)} for log in logs]
        try:
            super().append_logs(summed)
        except BaseException as error:
            self._whole = length
            with suppress(OSError):
                self._cut()
            if isinstance(error, RuntimeError):  # its lock, which is a file, too
                raise OSError(f"{self._file_path}: {error}") from error
            raise
        self._chain, self._length = chain, Path(self._file_path).stat().st_size

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The entries from this number on."""
        self._cut()
        return super().read_logs(log_number_from)

    def _catch_up(self, length: int) -> None:
        """Sums are over all that lies before: what was there at the start, and what a dashboard has added."""
        if length == self._length:
            return
        if length < self._length:
            self._chain, self._length = RunningSum(), 0
        with Path(self._file_path).open("rb") as file:
            file.seek(self._length)
            self._chain.read(file.read(length - self._length))
        self._length = length

    def _cut(self) -> None:
        if self._whole is not None:
            os.truncate(self._file_path, self._whole)
            self._whole = None


def has_sum(line: bytes) -> bool:
    """Whether a line says what it was and where; those of older versions and of dashboards do not."""
    return _SUMMED.fullmatch(line) is not None


@final
class RunningSum:
    """The sum over all bytes of a journal so far."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()

    def copy(self) -> RunningSum:
        """One that goes on from here by itself."""
        other = RunningSum()
        other._sum = self._sum.copy()
        return other

    def add(self, log: dict[str, Any]) -> str:
        """Take an entry in and return the sum that its line ends with."""
        body = json.dumps(log, separators=(",", ":")).encode()[:-1]
        found = self._of(body)
        self.read(body + f',"{_SUM}":"{found}"}}\n'.encode())
        return found

    def read(self, content: bytes) -> None:
        """Take in bytes as they are."""
        self._sum.update(content)

    def fits(self, line: bytes) -> bool | None:
        """Whether a line was written at this place; None for one without a sum, which says nothing of its place."""
        found = _SUMMED.fullmatch(line)
        return None if found is None else self._of(found[1]) == found[2].decode()

    def _of(self, body: bytes) -> str:
        total = self._sum.copy()
        total.update(body)
        return total.hexdigest()[:_LENGTH]
