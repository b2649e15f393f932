"""Tokens in blocks of one length: what language models are trained and scored on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from autoprune.data.base import DataSplits, ImageTransform, Split, _order, digest
from autoprune.errors import ConfigError, DataError

IGNORED = -100
"""A target that does not count, as in torch and transformers."""

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32)


@final
@dataclass(frozen=True, slots=True)
class Masking:
    """What a masked language model has to find: Devlin et al. 2019, arXiv 1810.04805, section 3.1.

    Of each block equally many tokens are chosen. Four of five of them are hidden, every tenth becomes any token, the
    others stay.

    Attributes:
        share: of the tokens of a block.
        mask: the token that hides others.
        vocabulary: number of tokens.
    """

    share: float
    mask: int
    vocabulary: int

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"masking: share must be above 0 and below 1, got {self.share!r}")
        if not 0 <= self.mask < self.vocabulary:
            raise ConfigError(
                f"masking: the mask token must be from 0 to {self.vocabulary - 1}, one of the {self.vocabulary} of the "
                f"network, got {self.mask!r}"
            )

    def __call__(self, blocks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(N, T) tokens -> (N, T) inputs and targets, the latter `IGNORED` where nothing is to be found."""
        count = max(1, round(self.share * blocks.shape[1]))
        chosen = torch.rand(blocks.shape, generator=generator).argsort(1)[:, :count]
        kind = torch.rand(chosen.shape, generator=generator)
        any_token = torch.randint(self.vocabulary, chosen.shape, generator=generator)
        there = blocks.gather(1, chosen)
        given = torch.where(kind < 0.8, self.mask, torch.where(kind < 0.9, any_token, there))
        inputs = blocks.scatter(1, chosen, given)
        return inputs, torch.full_like(blocks, IGNORED).scatter(1, chosen, there)


@final
class TokenSplit(Split):
    """A text in blocks, each token but the first to be told from those before it in its block, or from all around it.

    Blocks follow each other without a gap, so that every token is a target once; what is left at the end is not read.

    Args:
        tokens: (T,) of one text, or (N, T) of texts of one length, of any integer type.
        context: tokens that the network reads at once; None: of (N, T), as many as there are.
        shuffled: blocks in one fixed random order, so that the first are a fair sample.
        masking: what is to be found; None: the next token of each.

    Raises:
        DataError: no integers, or less than one block of them.
        ConfigError: a context below 1.
    """

    def __init__(
        self, tokens: Tensor, context: int | None = None, *, shuffled: bool = False, masking: Masking | None = None
    ) -> None:
        if not isinstance(tokens, Tensor) or tokens.dtype not in _INTEGERS or tokens.ndim not in (1, 2):
            raise DataError(
                f"tokens must be whole numbers, (T,) of one text or (N, T) of several, got {_shown(tokens)}; tokenize "
                f"the text first, or give it as the data set `text`"
            )
        context = tokens.shape[1] - (masking is None) if context is None and tokens.ndim == 2 else context
        if not isinstance(context, int) or isinstance(context, bool) or context < 1:
            raise ConfigError(f"context must be a whole number of tokens of at least 1, got {context!r}")
        rows = tokens if tokens.ndim == 2 else tokens[None]
        if rows.shape[1] <= context - (masking is not None) or not len(rows):
            raise DataError(
                f"{_shown(tokens)} are no block of {context} tokens and the one after; give a longer text, or a "
                f"smaller context"
            )
        self._rows, self._context, self._masking = rows, context, masking
        self._windows = self._cut(rows)
        self._order = torch.arange(len(self._windows))
        if shuffled:
            self._order = torch.randperm(len(self._order), generator=torch.Generator().manual_seed(0))
        self._shuffled = shuffled

    def __len__(self) -> int:
        return len(self._order)

    @property
    def context(self) -> int:
        """Tokens of a block."""
        return self._context

    @cached_property
    def largest(self) -> int:
        """The largest token."""
        return int(self._rows.cpu().numpy().max())  # torch has none of unsigned integers

    @cached_property
    def smallest(self) -> int:
        """The smallest token."""
        return int(self._rows.cpu().numpy().min())

    def masked(self, masking: Masking) -> TokenSplit:
        """The same text, tokens hidden."""
        return TokenSplit(self._rows, self._context, shuffled=self._shuffled, masking=masking)

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: bool | ImageTransform = False,
        limit: int | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split.batches`; yields (N, T) int64 inputs and targets.

        `augment` lets blocks begin elsewhere in a long text, which is a ring then; other tokens are hidden for each
        seed, and without one always the same.
        """
        if augment and seed is None:
            raise ConfigError("augmentation is random: pass a seed with augment=True")
        generator = torch.Generator().manual_seed(seed or 0)
        order = _order(len(self), generator if seed is not None else None, batch_size=batch_size, limit=limit)
        windows = self._windows
        if augment and self._rows.shape[1] > 2 * self._context:
            by = int(torch.randint(self._context, (1,), generator=generator))
            windows = self._cut(self._rows.roll(-by, 1))
        if self._masking is None:
            for chosen in torch.split(self._order[order], batch_size):
                block = windows[chosen].long()
                yield block[:, :-1], block[:, 1:]
            return
        for places in torch.split(order, batch_size):
            rows = windows[self._order[places]].long()
            made = [
                self._masking(row[None], torch.Generator().manual_seed(_mixed(seed, int(place))))
                for row, place in zip(rows, places, strict=True)
            ]
            yield torch.cat([inputs for inputs, _ in made]), torch.cat([targets for _, targets in made])

    @cached_property
    def fingerprint(self) -> str:
        """Of all tokens and how they are read."""
        return digest(self._rows.contiguous().long(), f"{self._context} {self._shuffled} {self._masking}")

    def _cut(self, rows: Tensor) -> Tensor:
        """(N, context + 1) windows, with masking (N, context)."""
        length = self._context + (self._masking is None)
        return rows.unfold(1, length, self._context).flatten(0, 1)


def _mixed(seed: int | None, place: int) -> int:
    """A seed for a block; of torch's generator on the CPU only the lowest 32 bits of one count."""
    return (2_654_435_761 * (1 + (seed or 0)) + 40_503 * place) % 2**32


def token_splits(
    tokens: Tensor,
    *,
    context: int,
    validation: float = 0.1,
    test: float = 0.1,
    vocabulary: int | None = None,
    name: str = "tokens",
) -> DataSplits:
    """One text in three parts: its beginning to train on, then validation, its end for test.

    Args:
        tokens: (T,) integers.
        context: tokens of a block.
        validation: share of the text, above 0.
        test: share of the text; 0: none.
        vocabulary: number of tokens, if it is known.
        name: for reports.

    Raises:
        ConfigError: shares that leave nothing to train on.
        DataError: see `TokenSplit`.
    """
    if not isinstance(tokens, Tensor) or not tokens.ndim:
        TokenSplit(tokens, context)  # says what is wrong
    first, second = part_ends(len(tokens), validation=validation, test=test)
    train, held_out, last = tokens[:first], tokens[first:second], tokens[second:] if test else None
    return splits_of_parts(train, held_out, last, context=context, vocabulary=vocabulary, name=name)


def splits_of_parts(
    train: Tensor,
    validation: Tensor,
    test: Tensor | None,
    *,
    context: int | None,
    vocabulary: int | None,
    name: str,
) -> DataSplits:
    """Splits of three texts; arguments and errors as those of `token_splits` and `TokenSplit`."""
    made = TokenSplit(train, context)
    return DataSplits(
        name=name,
        train=made,
        validation=TokenSplit(validation, context, shuffled=True),
        test=None if test is None else TokenSplit(test, context, shuffled=True),
        classes=vocabulary,
        input_shape=(made.context,),
    )


def part_ends(length: int, *, validation: float, test: float) -> tuple[int, int]:
    """Where the parts for training and validation end.

    Raises:
        ConfigError: shares out of their ranges.
    """
    for name, share, least in (("validation", validation, "above 0"), ("test", test, "of at least 0")):
        known = isinstance(share, int | float) and not isinstance(share, bool)
        if not known or not 0 <= share < 1 or (name == "validation" and not share):
            raise ConfigError(f"{name} must be a share {least} and below 1, got {share!r}")
    if validation + test >= 1:
        raise ConfigError(f"validation and test are {validation:g} and {test:g} of the text: leave some to train on")
    first = length - round(length * (validation + test))
    return first, length - round(length * test)


def _shown(tokens: object) -> str:
    return f"{tokens.dtype} {tuple(tokens.shape)}" if isinstance(tokens, Tensor) else type(tokens).__name__
