"""Texts of your own: a plain file, or tokens in an array."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from autoprune.data.array_files import ENDINGS, read_arrays
from autoprune.data.base import DataSplits
from autoprune.data.tokenizers import CHARACTERS, tokenizer_for
from autoprune.data.tokens import part_ends, splits_of_parts, token_splits
from autoprune.errors import ConfigError, DataError, blame

_PARTS = ("train", "validation", "test")


def load(
    path: Path,
    *,
    tokenizer: str = CHARACTERS,
    context: int = 256,
    validation: float = 0.1,
    test: float = 0.1,
    vocabulary: int | None = None,
) -> DataSplits:
    """A text in blocks: its beginning to train on, then validation, its end for test.

    Args:
        path: a text file in UTF-8; or tokens, whole numbers (T,), as .npy, .npz or .safetensors, which may hold them
            as `train`, `validation` and `test`, or as one array.
        tokenizer: of a text: "characters", "bytes", or the path of a `tokenizer.json` or of its folder.
        context: tokens that the network reads at once.
        validation: share of the text.
        test: share of the text; 0: none.
        vocabulary: number of tokens, of an array where it is known.

    Raises:
        ConfigError: an argument out of its range.
        DataError: the file is missing, or holds no text of at least a block for each part.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give data.path, a text file or an array of tokens")
    if path.suffix in ENDINGS:
        return _of_arrays(_arrays(path, vocabulary), path, context, validation, test, vocabulary)
    if vocabulary is not None:
        raise ConfigError(f"vocabulary is for arrays of tokens, got {vocabulary!r}; that of a text is its tokenizer's")
    return text_splits(
        _text(path), tokenizer=tokenizer, context=context, validation=validation, test=test, name=path.stem or "text"
    )


def text_splits(
    text: str, *, tokenizer: str, context: int, validation: float, test: float, name: str = "text"
) -> DataSplits:
    """A text in three parts; the tokenizer knows what the part for training has. Arguments and errors as of `load`."""
    first, second = part_ends(len(text), validation=validation, test=test)
    known = tokenizer_for(tokenizer, text[:first])
    train, held_out = known.encode(text[:first]), known.encode(text[first:second])
    last = known.encode(text[second:]) if test else None
    return splits_of_parts(train, held_out, last, context=context, vocabulary=known.vocabulary, name=name)


def _of_arrays(
    arrays: dict[str, Tensor], path: Path, context: int, validation: float, test: float, vocabulary: int | None
) -> DataSplits:
    if len(arrays) == 1:
        tokens = next(iter(arrays.values())).flatten()
        return token_splits(
            tokens, context=context, validation=validation, test=test, vocabulary=vocabulary, name=path.stem
        )
    if not {"train", "validation"} <= set(arrays) <= set(_PARTS):
        raise DataError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; give one array of tokens, or train, validation and test"
        )
    train, held_out = arrays["train"].flatten(), arrays["validation"].flatten()
    last = arrays["test"].flatten() if "test" in arrays else None
    return splits_of_parts(train, held_out, last, context=context, vocabulary=vocabulary, name=path.stem)


def _text(path: Path) -> str:
    """The content of a file in UTF-8, without a mark at its beginning; raises DataError where it is no text."""
    with blame(DataError, f"{path} is no text in UTF-8", then="Convert it, or give tokens as .npz."):
        with path.open("rb") as file:
            if b"\0" in file.read(_LOOKED_AT):  # of other encodings, and of files that are no text
                raise DataError(
                    f"{path} is no text in UTF-8: it has null characters; convert it, or give tokens as .npz"
                )
        return path.read_bytes().decode("utf-8-sig")


def _arrays(path: Path, vocabulary: int | None) -> dict[str, Tensor]:
    """Name -> tokens of a file, below a vocabulary where it is known; raises DataError where there are none."""
    if vocabulary is not None and (not isinstance(vocabulary, int) or isinstance(vocabulary, bool) or vocabulary < 1):
        raise ConfigError(f"vocabulary must be a whole number of at least 1, got {vocabulary!r}")
    found = {}
    for name, tokens in read_arrays(path, what="text").items():
        assert tokens is not None  # all are wanted
        if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
            raise DataError(f"{path}: {name}: tokens must be whole numbers, got an array of {str(tokens.dtype)[6:]}")
        found[name] = tokens.long()
        ends = (int(found[name].min()), int(found[name].max())) if tokens.numel() else (0, 0)
        if ends[0] < 0 or (vocabulary is not None and ends[1] >= vocabulary):
            most = "" if vocabulary is None else f" to {vocabulary - 1}, as the vocabulary says"
            raise DataError(f"{path}: {name} has tokens from {ends[0]} to {ends[1]}; give whole numbers from 0{most}")
    return found


_LOOKED_AT = 2**16
"""Bytes."""
