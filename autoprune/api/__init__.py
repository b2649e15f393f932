"""The Python front door."""

from __future__ import annotations

from autoprune.deprecation import moved_names

__getattr__ = moved_names(
    __name__,
    {
        "resume": "autoprune.api.search",  # `search` is the name of the module now; `autoprune.search` is the function
        **dict.fromkeys(("Space", "trace"), "autoprune.api.space"),
        "SearchResult": "autoprune.api.result",
    },
)
