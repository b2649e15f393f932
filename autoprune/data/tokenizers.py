"""From text to tokens: by characters or bytes, which need nothing, or as a `tokenizer.json` of Hugging Face's says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from autoprune.config.bounded_files import LONGEST_PATH, given_path
from autoprune.errors import ConfigError, DataError, shortened, suggest

CHARACTERS, BYTES = "characters", "bytes"


class Tokenizer(ABC):
    """Texts as numbers from 0 on.

    Attributes:
        vocabulary: how many numbers there are.
        mask: the number that stands for a hidden token; None where there is none.
    """

    vocabulary: int
    mask: int | None = None

    @abstractmethod
    def encode(self, text: str) -> Tensor:
        """Return (T,) int64."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text; what stands for no character in particular becomes U+FFFD."""


@final
class Bytes(Tokenizer):
    """The bytes of UTF-8: 256 tokens, any text."""

    vocabulary = 256

    def encode(self, text: str) -> Tensor:
        """See `Tokenizer.encode`."""
        return torch.from_numpy(np.frombuffer(text.encode(), np.uint8).astype(np.int64))

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        return bytes(tokens).decode(errors="replace")


@final
class Characters(Tokenizer):
    """One token for each character that a text holds, in the order of Unicode; 0 stands for all others.

    Args:
        text: of training.
    """

    def __init__(self, text: str) -> None:
        self._known = torch.unique(_points(text))
        self.vocabulary = len(self._known) + 1

    def encode(self, text: str) -> Tensor:
        """See `Tokenizer.encode`."""
        points = _points(text)
        place = torch.searchsorted(self._known, points).clamp(max=max(0, len(self._known) - 1))
        return torch.where(self._known[place] == points, place + 1, 0) if len(self._known) else torch.zeros_like(points)

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        return "".join(chr(int(self._known[token - 1])) if token else "\ufffd" for token in tokens)


@final
class TokenizerFile(Tokenizer):
    """What a `tokenizer.json` says, by the package `tokenizers`; it adds no special tokens.

    Args:
        path: the file, or the folder that it lies in.

    Raises:
        ConfigError: no such file, one that cannot be read, or the package is missing.
    """

    def __init__(self, path: Path) -> None:
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise ConfigError(
                f"tokenizer {str(path)!r}: no tokenizer.json there; give its folder, or {CHARACTERS} or {BYTES}."
                f"{suggest(str(path), (CHARACTERS, BYTES))}"
            )
        try:
            from tokenizers import Tokenizer as Library
        except ImportError as error:
            raise ConfigError(
                "a tokenizer.json needs the package tokenizers: pip install tokenizers, or choose the tokenizer "
                "characters or bytes"
            ) from error
        try:
            self._library = Library.from_file(str(file))
        except Exception as error:
            raise ConfigError(f"tokenizer {str(file)!r} cannot be read ({error}); write it anew") from error
        self.vocabulary = int(self._library.get_vocab_size(with_added_tokens=True))
        names = ("[MASK]", "<mask>", "<|mask|>")
        found = (self._library.token_to_id(name) for name in names)
        self.mask = next((number for number in found if number is not None), None)

    def encode(self, text: str) -> Tensor:
        """See `Tokenizer.encode`."""
        return torch.tensor(self._library.encode(text, add_special_tokens=False).ids, dtype=torch.int64)

    def decode(self, tokens: Sequence[int]) -> str:
        """See `Tokenizer.decode`."""
        return str(self._library.decode([int(token) for token in tokens]))


def tokenizer_for(name: str, training: str) -> Tokenizer:
    """The tokenizer of a name.

    Args:
        name: "characters", "bytes", or the path of a `tokenizer.json` or of its folder.
        training: the text of training, whose characters are known.

    Raises:
        ConfigError: the name is none of these.
        DataError: the text is empty.
    """
    if not training:
        raise DataError("the text of training is empty; give a longer text")
    if not isinstance(name, str) or not name or len(name) > LONGEST_PATH or "\0" in name:
        raise ConfigError(
            f"tokenizer must be {CHARACTERS}, {BYTES}, or the path of a tokenizer.json, got {shortened(repr(name), 80)}"
        )
    if name == BYTES:
        return Bytes()
    return Characters(training) if name == CHARACTERS else TokenizerFile(given_path(name, "tokenizer"))


def _points(text: str) -> Tensor:
    """(T,) code points."""
    return torch.from_numpy(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64))
