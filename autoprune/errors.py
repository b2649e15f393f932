"""Every error that autoprune raises on purpose; each says which thing, what was given, what is allowed, what next."""

from __future__ import annotations

import difflib
import re
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from autoprune.redaction import masked

SCREEN_LINES, SCREEN_LETTERS = 24, 2000
"""What one message may take."""

_OURS = str(Path(__file__).parent)
_NOT_THE_USERS = (_OURS, *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), "<frozen ")


class AutopruneError(Exception):
    """Base of all errors a user can cause or meet; the command line prints it without a traceback, exit code 2.

    What it says holds no secrets, whatever it quotes, and fits a screen.
    """

    def __init__(self, *told: object) -> None:
        super().__init__(*(screenful(masked(part)) if isinstance(part, str) else part for part in told))


class ConfigError(AutopruneError):
    """A job file, a setting or an argument is not usable."""


class UnsetVariableError(ConfigError):
    """A job file takes a value from the environment that is not set there."""


class RegistryError(ConfigError):
    """An unknown or clashing name of a controller, criterion, metric, evaluator, allocation or data set."""


class TraceError(AutopruneError):
    """The model cannot be exported to a graph."""


class SpaceError(AutopruneError):
    """Widths, groups or a space file do not fit together."""


class BudgetError(AutopruneError):
    """A budget is malformed, contradicts itself or cannot be reached."""


class DataError(AutopruneError):
    """A data set is missing or malformed."""


class EvaluationError(AutopruneError):
    """A candidate could not be scored (not a number, no scores at all)."""


class ExportError(AutopruneError):
    """A network cannot be written in a format, or what was written does not compute what the network does."""


class RunError(AutopruneError):
    """A run directory or ledger cannot be used: taken, read-only, incomplete, or of another job."""


class BusyRunError(RunError):
    """Another process works on the run."""


class EngineLostError(RunError):
    """What evaluates is gone for good; every ended trial is on disk, and the run can be resumed."""


def shortened(text: str, most: int) -> str:
    """The text, its middle left out where it has more than `most` characters."""
    return text if len(text) <= most else f"{text[: most - most // 3 - 1]}…{text[len(text) - most // 3 :]}"


def screenful(text: str) -> str:
    """The text as it fits a screen; what is left out is from its middle, as what to do stands at the end."""
    lines = text.splitlines()
    if len(lines) > SCREEN_LINES:
        half = (SCREEN_LINES - 1) // 2
        left = f"… {len(lines) - 2 * half} more lines …"
        text = "\n".join((*lines[:half], left, *lines[-half:]))
    return shortened(text, SCREEN_LETTERS)


def suggest(given: str, allowed: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the closest allowed name, or an empty string."""
    given = given[:200]
    close = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


@contextmanager
def blame(kind: type[AutopruneError], what: str, *, then: str = "", only_users: bool = False) -> Iterator[None]:
    """Turn whatever the user's code inside raises into one clear error; those of our own and Ctrl-C pass.

    Args:
        kind: the error to raise.
        what: what failed, as the start of a sentence; or, with `only_users`, what is said after the error.
        then: what to do about it, as a sentence.
        only_users: let pass what no line of the user's own raised or called, as a fault of ours.

    Raises:
        AutopruneError: `kind`, with the error's type and text, and the innermost line of the user's own.
    """
    try:
        yield
    except (AutopruneError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        if is_interrupted(error) or (only_users and not _is_users(error)):
            raise
        told = f"{told_of(error)}; {what}" if only_users else f"{what}: {told_of(error)}"
        raise kind(f"{told}.{then and ' '}{then}") from error


def told_of(error: BaseException) -> str:
    """An error of the user's code in a line: its type, its text, and the innermost line that is the user's own."""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    carried = text.rpartition(_CARRIED)[2] if _CARRIED in text else ""  # of a process of its own, such as a loader's
    if carried:
        told, place = carried.strip().rpartition("\n")[2], _innermost(_FRAME.findall(carried))
    else:
        told = ": ".join(part for part in (type(error).__name__, " ".join(text.split())) if part)
        place = _place(error)
    return f"{shortened(told.rstrip('.'), 600)}{place}"


def told_of_traceback(text: str) -> str:
    """The same of a traceback that was written down; empty where the text is empty."""
    if _GROUPED in text:  # what its members were is in their own tracebacks, below
        text = _BAR.sub("", text.partition("+-+")[0])
    _, _, inner = text.rpartition(_CARRIED)
    raised = _raised(inner if _FRAME.search(inner) else text)
    if raised.startswith(_OWN):  # it says all by itself
        return raised.partition(": ")[2].rstrip(".")
    return f"{shortened(raised.rstrip('.'), 600)}{_innermost(_FRAME.findall(inner))}"


def _raised(text: str) -> str:
    """What follows the frames of a traceback, in one line; of a text without frames its last line."""
    frames = [found.end() for found in _FRAME.finditer(text)]
    lines = [line for line in text[frames[-1] if frames else 0 :].splitlines() if line.strip()]
    first = next((n for n, line in enumerate(lines) if n and not line[0].isspace()), len(lines) - 1) if frames else -1
    return " ".join(" ".join(lines[first:]).split())


_CARRIED = "Traceback (most recent call last):"
_FRAME = re.compile(r'^\s*File "(.+)", line (\d+)', re.MULTILINE)
_GROUPED, _BAR = "Exception Group Traceback", re.compile(r"^ *[|+] ", re.MULTILINE)
_OWN = f"{__name__}."


def is_interrupted(error: BaseException | None) -> bool:
    """Whether it is what became of a Ctrl-C, or of a signal, on its way."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory did not suffice, of a device or of the machine."""
    while error is not None:
        told = isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or told:
            return True
        error = error.__cause__
    return False


_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "CUDNN_STATUS_ALLOC_FAILED")


def _place(error: BaseException) -> str:
    """` (file:line)` of the innermost frame that is neither ours nor a library's; empty if there is none."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}:{error.lineno})"
    return _innermost([(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)])


def _innermost(frames: Sequence[tuple[str, object]]) -> str:
    users = [f" ({file}:{line})" for file, line in frames if not file.startswith(_NOT_THE_USERS)]
    return users[-1] if users else ""


def _is_users(error: BaseException) -> bool:
    """Whether the user's own code raised it, or called what did, or the machine ran out of memory."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = next((n for n, frame in reversed([*enumerate(frames)]) if frame.filename.startswith(_OURS)), -1)
    below = frames[inside + 1 :]
    return (
        isinstance(error, MemoryError)
        or "OutOfMemory" in type(error).__name__
        or bool(_innermost([(frame.filename, frame.lineno) for frame in below]))
        or _CARRIED in str(error)
    )
