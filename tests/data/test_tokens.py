"""Blocks of tokens: every token is a target once, hidden ones are as many in each block."""

from __future__ import annotations

import pytest
import torch

from autoprune.data.tokens import Masking, TokenSplit, token_splits
from autoprune.errors import ConfigError, DataError
from autoprune.training.objectives.logits import IGNORED

TEXT = torch.arange(100) % 17


def read(split: TokenSplit, **how: object) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, targets = zip(*split.batches(4, **how), strict=True)  # type: ignore[arg-type]
    return torch.cat(inputs), torch.cat(targets)


def test_every_token_but_the_first_is_a_target_once() -> None:
    inputs, targets = read(TokenSplit(TEXT, 9))
    assert inputs.shape == targets.shape == (11, 9)
    assert torch.equal(inputs.flatten(), TEXT[:99])
    assert torch.equal(targets.flatten(), TEXT[1:])


def test_scored_blocks_have_one_random_order_and_a_seed_gives_another() -> None:
    plain, shuffled = (read(TokenSplit(TEXT, 9, shuffled=mixed))[1] for mixed in (False, True))
    assert sorted(map(tuple, plain.tolist())) == sorted(map(tuple, shuffled.tolist()))
    assert not torch.equal(plain, shuffled)
    one, other = (read(TokenSplit(TEXT, 9), seed=seed)[1] for seed in (1, 2))
    assert sorted(map(tuple, one.tolist())) == sorted(map(tuple, other.tolist()))
    assert not torch.equal(one, other)


def test_augmented_blocks_begin_elsewhere_and_stay_in_the_text() -> None:
    split = TokenSplit(torch.arange(1000), 10)
    starts = {int(read(split, seed=seed, augment=True)[0][0, 0]) % 10 for seed in range(20)}
    assert len(starts) > 3
    inputs, targets = read(split, seed=3, augment=True)
    assert len(inputs) == len(split)
    assert torch.equal((inputs + 1) % 1000, targets)


def test_rows_of_one_length_are_texts_of_their_own() -> None:
    inputs, targets = read(TokenSplit(TEXT[:96].view(12, 8).int()))
    assert inputs.dtype == torch.int64
    assert inputs.shape == (12, 7)
    assert torch.equal(targets, TEXT[:96].view(12, 8)[:, 1:])


def test_of_each_block_equally_many_tokens_are_hidden_and_nothing_else_changes() -> None:
    split = TokenSplit(torch.arange(4000) % 40, 20).masked(Masking(0.25, mask=40, vocabulary=41))
    inputs, targets = read(split)
    known = targets != IGNORED
    assert known.sum(1).tolist() == [5] * len(split)
    blocks = torch.where(known, targets, inputs)
    assert torch.equal(blocks.flatten(), (torch.arange(4000) % 40)[: blocks.numel()])
    shares = [(inputs[known] == 40).float().mean().item(), (inputs[known] == targets[known]).float().mean().item()]
    assert shares == pytest.approx([0.8, 0.1], abs=0.05)
    again, other = read(split), read(split, seed=1)
    assert torch.equal(again[0], inputs)
    assert not torch.equal(other[0].sort(0).values, inputs.sort(0).values)
    assert torch.equal(torch.cat([one for one, _ in split.batches(7)]), inputs)  # whatever the size of a batch


def test_parts_follow_each_other_without_a_token_in_common() -> None:
    splits = token_splits(torch.arange(1000), context=10, validation=0.2, test=0.1)
    ends = [(int(part._rows.min()), int(part._rows.max())) for part in (splits.train, splits.validation, splits.test)]
    assert ends == [(0, 699), (700, 899), (900, 999)]
    assert splits.input_shape == (10,)
    assert token_splits(torch.arange(1000), context=10, test=0).test is None


def test_fingerprints_follow_tokens_and_context() -> None:
    prints = {TokenSplit(TEXT, 9).fingerprint, TokenSplit(TEXT, 8).fingerprint, TokenSplit(TEXT + 1, 9).fingerprint}
    assert len(prints) == 3
    assert TokenSplit(TEXT, 9).fingerprint in prints


@pytest.mark.parametrize(
    ("tokens", "context", "kind", "message"),
    [
        (torch.rand(30), 5, DataError, r"whole numbers.*got torch\.float32"),
        (torch.arange(5), 5, DataError, "no block of 5 tokens and the one after"),
        (TEXT, 0, ConfigError, "context must be a whole number of tokens of at least 1, got 0"),
        (TEXT.view(2, 5, 10), 5, DataError, r"\(T,\) of one text or \(N, T\)"),
    ],
)
def test_what_is_no_text_is_one_clear_error(
    tokens: torch.Tensor, context: int, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        TokenSplit(tokens, context)


@pytest.mark.parametrize(("share", "mask", "message"), [(0.0, 3, "share must be above 0"), (0.1, 9, "from 0 to 8")])
def test_masking_that_cannot_be(share: float, mask: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Masking(share, mask=mask, vocabulary=9)


@pytest.mark.parametrize(("shares", "message"), [((0.0, 0.1), "validation"), ((0.6, 0.4), "leave some to train on")])
def test_shares_that_leave_nothing(shares: tuple[float, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        token_splits(TEXT, context=5, validation=shares[0], test=shares[1])
