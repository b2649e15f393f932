"""The command line."""

from autoprune.deprecation import moved

__getattr__ = moved(
    __name__,
    {
        "app": "autoprune.cli.main",
        "main": "autoprune.cli.main",
    },
    since="2026-11-29",
)
