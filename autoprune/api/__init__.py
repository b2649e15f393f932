"""The Python front door."""

from autoprune.deprecation import moved

__getattr__ = moved(
    __name__,
    {
        "SearchResult": "autoprune.api.result",
        "Space": "autoprune.api.space",
        "resume": "autoprune.api.search",
        "trace": "autoprune.api.space",
    },
    since="2026-11-29",
)
