"""The topics of Python's manual, English text that ships with Python in `pydoc_data.topics` (PSF licence)."""

from __future__ import annotations

from pathlib import Path

from autoprune.data.base import DataSplits
from autoprune.data.text import text_splits
from autoprune.data.tokenizers import CHARACTERS
from autoprune.errors import DataError


def load(
    *,
    tokenizer: str = CHARACTERS,
    context: int = 128,
    validation: float = 0.1,
    test: float = 0.1,
    limit: int | None = None,
) -> DataSplits:
    """The manual in three parts, 373,292 characters in Python 3.11; those of other versions differ a little.

    Args:
        tokenizer: "characters", "bytes", or the path of a `tokenizer.json`.
        context: tokens that the network reads at once.
        validation: share of the text.
        test: share of the text.
        limit: only so many of the first characters.

    Raises:
        ConfigError: an argument out of its range.
        DataError: this Python comes without the topics.
    """
    return text_splits(
        manual()[:limit],
        tokenizer=tokenizer,
        context=context,
        validation=validation,
        test=test,
        name="python_manual",
    )


def manual() -> str:
    """The text: topics by name, each paragraph once, as several topics repeat whole sections.

    Raises:
        DataError: this Python comes without it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError("this Python comes without pydoc_data.topics; give a text of your own") from error
    kept: dict[str, str] = {}
    for name in sorted(topics):
        for paragraph in topics[name].split("\n\n"):
            if key := " ".join(paragraph.split()):
                kept.setdefault(key, paragraph)
    return "\n\n".join(kept.values())


def available(path: Path | None) -> bool:
    """It comes with Python."""
    return True
