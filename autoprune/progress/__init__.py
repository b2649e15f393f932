"""What a run shows while it works, and who else is told: one card per callback in the table below."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from autoprune.errors import ConfigError, suggest
from autoprune.registry import Part, Registry

if TYPE_CHECKING:
    from autoprune.progress.base import Progress

CALLBACKS = Registry(
    "callback",
    {
        "tensorboard": Part(
            "autoprune.progress.tensorboard:TensorBoard",
            "https://www.tensorflow.org/tensorboard",
            "The default: curves of scores and pace in the run directory; nothing without tensorboardX.",
        ),
        "mlflow": Part(
            "autoprune.progress.mlflow:MLflow",
            "https://mlflow.org",
            "Runs are compared in MLflow: job, score and costs of each trial, verdict; needs `autoprune[mlflow]`.",
        ),
    },
    group="autoprune.callbacks",
    reserved=("clock",),  # the tests' own
)


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
