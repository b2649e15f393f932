"""Perplexity and divergence of tokens are those of numpy, scipy and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax
from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError
from autoprune.measures.accuracy import Accuracy
from autoprune.measures.divergence import Divergence
from autoprune.measures.of_logits import OfLogits
from autoprune.measures.perplexity import Perplexity
from autoprune.tasks.scoring import score_of

GENERATOR = torch.Generator().manual_seed(0)
LOGITS, BASE = (2 * torch.randn(6, 5, 11, generator=GENERATOR) for _ in range(2))
TOKENS = torch.randint(11, (6, 5), generator=GENERATOR)
TOKENS[1, 3:], TOKENS[4, :4] = -100, -100
INPUTS = torch.zeros(6, 5, dtype=torch.int64)


class Output(dict[str, Tensor]):
    """As transformers returns them."""


def value(logits: Tensor = LOGITS, tokens: Tensor = TOKENS) -> float:
    measure = Perplexity()
    return -score_of(measure, measure.values(logits, Batch(INPUTS, tokens), None).numpy()).value


def test_perplexity_is_of_all_tokens_alike_whatever_text_they_are_in() -> None:
    logs = log_softmax(LOGITS.double().numpy(), axis=2)
    rows, places = np.nonzero(TOKENS.numpy() != -100)
    nats = -logs[rows, places, TOKENS.numpy()[rows, places]]
    assert value() == pytest.approx(np.exp(nats.mean()), rel=1e-12)
    assert value(Output(logits=LOGITS)) == value()


def test_perplexity_is_torchmetrics() -> None:
    library = pytest.importorskip("torchmetrics.text")
    theirs = library.Perplexity(ignore_index=-100)
    assert value() == pytest.approx(float(theirs(LOGITS, TOKENS)), rel=1e-5)


def test_class_numbers_are_texts_of_one_token() -> None:
    logs = log_softmax(LOGITS[:, 0].double().numpy(), axis=1)
    labels = TOKENS[:, 0].clamp(min=0)
    assert value(LOGITS[:, 0], labels) == pytest.approx(np.exp(-logs[np.arange(6), labels.numpy()].mean()))


def test_the_standard_error_is_that_of_the_mean_nats_times_the_perplexity() -> None:
    logits = torch.randn(400, 3, 7, generator=torch.Generator().manual_seed(1))
    tokens = torch.randint(7, (400, 3), generator=torch.Generator().manual_seed(2))
    measure = Perplexity()
    score = score_of(measure, measure.values(logits, Batch(tokens, tokens), None).numpy())
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view(400, 3)
    known = float(nats.mean(1).std()) / 20 * -score.value
    assert score.standard_error == pytest.approx(known, rel=0.4)  # 20 groups give a standard error to about 16 %


def test_divergence_of_tokens_is_scipys_without_those_that_do_not_count() -> None:
    p, q = (softmax(tensor.double().numpy(), axis=2) for tensor in (BASE, LOGITS))
    each, counts = rel_entr(p, q).sum(2), TOKENS.numpy() != -100
    expected = (each * counts).sum(1) / counts.sum(1)
    measure = Divergence(kind="kl", axis=-1)
    np.testing.assert_allclose(measure.values(LOGITS, Batch(INPUTS, TOKENS), BASE).numpy(), expected, rtol=1e-10)
    whole = measure.values(LOGITS, Batch(INPUTS), BASE).numpy()
    np.testing.assert_allclose(whole, each.mean(1), rtol=1e-10)


def test_other_measures_look_at_the_logits_of_an_output() -> None:
    labels = torch.arange(6) % 5
    given = Batch(INPUTS, labels)
    plain = Accuracy().values(LOGITS[:, 0, :5], given, None)
    wrapped = OfLogits(Accuracy())
    assert torch.equal(wrapped.values(Output(logits=LOGITS[:, 0, :5]), given, None), plain)
    assert wrapped.scale == Accuracy().scale


@pytest.mark.parametrize(
    ("logits", "tokens", "message"),
    [
        (LOGITS, torch.full((6, 5), 11), "tokens up to 11 for a network of 11 tokens"),
        (LOGITS, torch.full((6, 5), -1), "tokens up to -1"),
        (LOGITS[:, :3], TOKENS, "do not fit"),
        (LOGITS, None, "needs logits .* and no targets"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(logits: Tensor, tokens: Tensor | None, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        Perplexity().values(logits, Batch(INPUTS, tokens), None)


def test_data_without_a_token_to_tell_are_an_error() -> None:
    with pytest.raises(EvaluationError, match="no token of the data is to be told"):
        value(LOGITS, torch.full((6, 5), -100))


def test_one_text_may_hold_all_that_is_to_be_told() -> None:
    """The jackknife leaves each text out in turn, and nothing is left then: the error is not known."""
    alone = torch.full_like(TOKENS, -100)
    alone[2] = TOKENS[2]
    measure = Perplexity()
    found, error = measure.combine(measure.values(LOGITS, Batch(INPUTS, alone), None).numpy())
    assert (found, error) == (pytest.approx(value(LOGITS[2:3], TOKENS[2:3])), None)
