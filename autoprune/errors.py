"""Every error that autoprune raises on purpose; each says which thing, what was given, what is allowed, what next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AutopruneError(Exception):
    """Base of all errors a user can cause or meet; the command line prints it without a traceback, exit code 2."""


class ConfigError(AutopruneError):
    """A job file, a setting or an argument is not usable."""


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


class RunError(AutopruneError):
    """A run directory or ledger cannot be used: taken, read-only, incomplete, or of another job."""


class AutopruneWarning(UserWarning):
    """Something the user should know that does not stop the work."""


def suggest(given: str, allowed: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the closest allowed name, or an empty string."""
    close = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""
