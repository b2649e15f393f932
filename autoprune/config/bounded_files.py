"""Text files that anybody may have written: read within bounds, so that none of them hangs, floods or crashes us."""

from __future__ import annotations

import errno
import stat
from collections.abc import Sequence
from pathlib import Path

from autoprune.errors import ConfigError, shortened

MOST_BYTES = 2**20
"""Of a file with options; a job file has a few thousand."""

LONGEST_PATH = 1024


def read_text(path: Path, *, most: int = MOST_BYTES, then: str = "give the path of a YAML file") -> str:
    """The content of a regular file in UTF-8.

    Args:
        path: of the file.
        most: bytes that it may have.
        then: what to do where it cannot be read.

    Raises:
        ConfigError: there is none, it is no regular file, too large, or not UTF-8.
    """
    told = shown_path(path)
    try:
        found = path.stat()  # before it is opened: a pipe would wait for its writer
        if not stat.S_ISREG(found.st_mode):
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a device, pipe or socket"
            raise ConfigError(f"cannot read {told}: it is {kind}, not a file; {then}")
        with path.open("rb") as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise ConfigError(f"cannot read {told}: {getattr(error, 'strerror', None) or error}; {then}") from error
    if len(content) > most:
        raise ConfigError(f"{told} has more than {most:,} bytes, the most that is read here; {then}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{told}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file in that encoding"
        ) from None


def is_file(path: Path) -> bool:
    """Whether there is a regular file; none is where the path can be none, or may not be looked up."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, no permission
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder; none is where the path can be none, or may not be looked up."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def given_path(given: object, what: str) -> Path:
    """A path that somebody gave as a setting, with the home of `~`.

    Args:
        given: a text or a path.
        what: the setting, for messages.

    Raises:
        ConfigError: it is none, or can be none.
    """
    text = str(given) if isinstance(given, str | Path) else ""
    if not text or len(text) > LONGEST_PATH or "\0" in text:
        limit = f"of at most {LONGEST_PATH:,} characters"
        raise ConfigError(f"{what} must be a path {limit}, got {shortened(repr(given), 80)}")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        home = Path(text).parts[0]
        raise ConfigError(f"{what}: {home} names the home of nobody here; write ./{home} for a file") from None


def found_path(path: Path, folders: Sequence[Path]) -> Path:
    """A path in the first of the folders that has it; as given if none has.

    Raises:
        ValueError: it is too long, holds a null character, has an unknown home, or names a device, pipe or socket.
    """
    text = str(path)
    if len(text) > LONGEST_PATH or "\0" in text:
        raise ValueError(f"a path has at most {LONGEST_PATH:,} characters, none of them null")
    try:
        own = path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path.parts[0]} names the home of nobody here; write ./{path.parts[0]} for a file") from None
    for place in (folder / own for folder in folders):
        try:
            mode = place.stat().st_mode
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                continue
            raise ValueError(f"this path cannot be looked up: {error.strerror}") from None
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ValueError("this is a device, pipe or socket; give a file or a folder")
        return place
    return path


def shown_path(path: Path, most: int = 200) -> str:
    """A path for messages, its middle left out where it is long."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(path))
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 :]}"
