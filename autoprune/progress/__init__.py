"""What a run shows while it works, and who else is told."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from autoprune.errors import ConfigError, suggest

if TYPE_CHECKING:
    from autoprune.progress.base import Progress


def make_progress(mode: str = "auto", stream: TextIO | None = None) -> Progress:
    """Return the display for a stream, standard error by default; "auto" is live only in a terminal.

    Raises:
        ConfigError: an unknown mode.
    """
    if mode == "auto":
        mode = "rich" if (stream or sys.stderr).isatty() else "plain"
    match mode:
        case "rich":
            from autoprune.progress.live import RichProgress

            return RichProgress(stream)
        case "plain":
            from autoprune.progress.plain import PlainProgress

            return PlainProgress(stream)
        case "silent":
            from autoprune.progress.base import SilentProgress

            return SilentProgress()
    allowed = ("auto", "rich", "plain", "silent")
    raise ConfigError(f"progress {mode!r} is unknown; allowed: {', '.join(allowed)}.{suggest(mode, allowed)}")
