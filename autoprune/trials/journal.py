"""The journal file of a ledger: a kill or a failed write leaves nothing half written behind."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from optuna.storages.journal import JournalFileBackend


@final
class Journal(JournalFileBackend):
    """A journal file in which a failed write leaves nothing, so that it can be repeated; there is one writer."""

    _whole: int | None = None  # length to cut the file to, where that has failed so far

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write entries, all of them or none; raises OSError."""
        self._cut()
        length = Path(self._file_path).stat().st_size
        try:
            super().append_logs(logs)
        except BaseException as error:
            self._whole = length
            with suppress(OSError):
                self._cut()
            if isinstance(error, RuntimeError):  # its lock, which is a file, too
                raise OSError(f"{self._file_path}: {error}") from error
            raise

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The entries from this number on."""
        self._cut()
        return super().read_logs(log_number_from)

    def _cut(self) -> None:
        if self._whole is not None:
            os.truncate(self._file_path, self._whole)
            self._whole = None


def mend(journal: Path) -> None:
    """Drop a line cut short by a kill and a lock left behind; the caller holds the run's own lock."""
    journal.with_name(journal.name + ".lock").unlink(missing_ok=True)
    if not journal.exists():
        return
    with journal.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
