"""Which display a run gets."""

from __future__ import annotations

import sys
from typing import Literal, TextIO

from autoprune.errors import ConfigError, suggest
from autoprune.progress.base import PlainProgress, Progress, SilentProgress

Mode = Literal["auto", "rich", "plain", "silent"]


def make_progress(mode: str = "auto", stream: TextIO | None = None) -> Progress:
    """Return the display for a stream, standard error by default; "auto" is live only in a terminal.

    Raises:
        ConfigError: an unknown mode.
    """
    if mode == "auto":
        mode = "rich" if (stream or sys.stderr).isatty() else "plain"
    match mode:
        case "rich":
            from autoprune.progress.live import RichProgress  # rich is heavy, and only a terminal needs it

            return RichProgress(stream)
        case "plain":
            return PlainProgress(stream)
        case "silent":
            return SilentProgress()
    allowed = ("auto", "rich", "plain", "silent")
    raise ConfigError(f"progress {mode!r} is unknown; allowed: {', '.join(allowed)}.{suggest(mode, allowed)}")
