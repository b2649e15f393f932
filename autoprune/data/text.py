"""Texts of your own: a plain file, or tokens in an array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from autoprune.data.base import DataSplits
from autoprune.data.tokenizers import CHARACTERS, tokenizer_for
from autoprune.data.tokens import part_ends, splits_of_parts, token_splits
from autoprune.errors import DataError, blame

_ARRAYS = (".npy", ".npz", ".safetensors")


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
    if path.suffix in _ARRAYS:
        return _of_arrays(_arrays(path), path, context, validation, test, vocabulary)
    with blame(DataError, f"{path} is no text in UTF-8", then="Convert it, or give tokens as .npz."):
        text = path.read_bytes().decode()
    return text_splits(
        text, tokenizer=tokenizer, context=context, validation=validation, test=test, name=path.stem or "text"
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
    if not {"train", "validation"} <= set(arrays):
        raise DataError(
            f"{path} holds {', '.join(arrays) or 'nothing'}; give one array of tokens, or train, validation and test"
        )
    train, held_out = arrays["train"].flatten(), arrays["validation"].flatten()
    last = arrays["test"].flatten() if "test" in arrays else None
    return splits_of_parts(train, held_out, last, context=context, vocabulary=vocabulary, name=path.stem)


def _arrays(path: Path) -> dict[str, Tensor]:
    """Name -> array of a file; no pickles."""
    with blame(DataError, f"{path} cannot be read", then="Write it anew."):
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        found = np.load(path, allow_pickle=False)
        named = {"tokens": found} if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
        return {name: _tensor(array) for name, array in named.items()}


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "iu":
        raise DataError(f"tokens must be whole numbers, got an array of {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))
