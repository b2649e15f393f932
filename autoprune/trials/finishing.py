"""The wish to finish a search with the trials so far: a file in the run's directory, which whoever works on it sees."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from autoprune.files import write_whole

REQUEST = "finish"
"""The file; it goes when the run has ended, or goes on with another job."""

_MARK = "run.json"


def ask_to_finish(path: Path) -> None:
    """Ask for the search of the run, or the searches of the family, in this directory to end with the trials so far.

    Raises:
        RunError: the directory cannot be written.
    """
    write_whole(path / REQUEST, b"asked to finish with the trials so far\n")


def is_asked_to_finish(path: Path) -> bool:
    """Whether that was asked for of this run, or of a family or run that it is a part of."""
    whole = path
    while (whole / _MARK).is_file():
        if (whole / REQUEST).is_file():
            return True
        whole = whole.parent
    return False


def forget_to_finish(path: Path) -> None:
    """Take the wish back, where there is one; where that fails, it is harmless as long as the run is not continued."""
    with suppress(OSError):
        (path / REQUEST).unlink(missing_ok=True)
