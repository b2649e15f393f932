"""Finding the original files of a data set on disk; nothing is ever downloaded."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from autoprune.config.bounded_files import is_file, shown_path
from autoprune.errors import DataError

DATA_VARIABLE = "AUTOPRUNE_DATA"


def has_originals(path: Path | None, *, folder: str, files: Iterable[str]) -> bool:
    """Whether all of these files are there, packed or not; arguments as of `read_original`."""
    places = _places(path, folder)
    return bool(places) and all(_found(places, file) is not None for file in files)


def read_original(data_set: str, path: Path | None, *, folder: str, file: str) -> bytes:
    """Return the content of `file`, unpacked if it is there as `file.gz`.

    Args:
        data_set: its name, for messages.
        path: the folder with the files or one above it, as in `folder`; None: the variable AUTOPRUNE_DATA.
        folder: where the files lie in the usual layout, for example "FashionMNIST/raw".
        file: the file's name.

    Raises:
        DataError: no path at all, or the file is not there or cannot be read.
    """
    places = _places(path, folder)
    remedy = f"set path or the environment variable {DATA_VARIABLE} to the folder that holds it (nothing is downloaded)"
    if not places:
        raise DataError(f"{data_set}: {folder}/{file} is needed and no folder was given; {remedy}")
    found = _found(places, file)
    if found is not None:
        try:
            return gzip.decompress(found.read_bytes()) if found.suffix == ".gz" else found.read_bytes()
        except (OSError, EOFError) as error:
            raise DataError(f"{data_set}: {found} cannot be read ({error}); fetch the original again") from error
    looked = ", ".join(map(shown_path, places))
    raise DataError(f"{data_set}: no file {file!r} (or {file}.gz) in any of {looked}; {remedy}")


def _places(path: Path | None, folder: str) -> list[Path]:
    """Where to look: the folder given, and that of the usual layout below it; nowhere without any."""
    given = path or (Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None)
    if given is None:
        return []
    parts = PurePosixPath(folder).parts
    return [given.joinpath(*parts[depth:]) for depth in range(len(parts) + 1)]


def _found(places: Iterable[Path], file: str) -> Path | None:
    candidates = (place / name for place in places for name in (file, f"{file}.gz"))
    return next((path for path in candidates if is_file(path)), None)
