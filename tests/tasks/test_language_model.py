"""Language models: what they are trained for, what they are scored by, and the data that they read."""

from __future__ import annotations

from typing import Any

import hugging_face
import numpy as np
import pytest
import torch
from listed import Listed
from scipy.special import log_softmax
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from autoprune.data.batch import Batch
from autoprune.data.text import text_splits
from autoprune.errors import ConfigError, DataError
from autoprune.tasks.base import Task, TaskInputs, make_task
from autoprune.tasks.language_model import with_targets
from autoprune.testing.tasks import TaskContract
from autoprune.training.recipe import Recipe
from autoprune.zoo.llama import char_llama

CPU = torch.device("cpu")
TEXT = "the quick brown fox jumps over the lazy dog. " * 60
SPLITS = text_splits(TEXT, tokenizer="characters", context=16, validation=0.2, test=0.1)
RECIPE = Recipe(epochs=2, lr=3e-3, batch_size=16, optimizer="adamw")


def llama(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return char_llama(vocabulary=32, width=16, layers=1, heads=2, key_value_heads=1, hidden=24, context=16).eval()


def made(data: Any = SPLITS, model: nn.Module | None = None, measure: Any = None, **settings: Any) -> Task:
    given = TaskInputs(llama() if model is None else model, data, RECIPE, CPU)
    return make_task("language_model", settings, given, measure=measure)


class TestLanguageModel(TaskContract):
    @pytest.fixture(params=[({}, None), ({}, "divergence"), ({"kind": "masked"}, None)], ids=str)
    def task(self, request: pytest.FixtureRequest) -> Task:
        return made(measure=request.param[1], **request.param[0])

    @pytest.fixture
    def model(self) -> nn.Module:
        return llama(1)

    @pytest.fixture
    def base(self) -> nn.Module:
        return llama(2)


def by_numpy(model: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    with torch.no_grad():
        logs = log_softmax(model(inputs).double().numpy(), axis=2)
    rows, places = np.nonzero(targets.numpy() != -100)
    return float(np.exp(-logs[rows, places, targets.numpy()[rows, places]].mean()))


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_the_score_is_the_perplexity_of_every_token_that_is_to_be_told(kind: str) -> None:
    task = made(kind=kind)
    blocks = list(task.scored_batches("test", None))  # type: ignore[attr-defined]
    inputs, targets = (torch.cat([getattr(b, name) for b in blocks]) for name in ("inputs", "targets"))
    assert (targets != -100).sum(1).tolist() == [16 if kind == "causal" else 2] * len(inputs)
    assert -task.score(llama(), split="test") == pytest.approx(by_numpy(llama(), inputs, targets), rel=1e-6)
    assert task.scale.told == "perplexity, lower is better"


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_training_lowers_the_perplexity_and_the_same_seed_gives_the_same_weights(kind: str) -> None:
    task, first, again = made(kind=kind), llama(), llama()
    for network in (first, again):
        task.train(network, epochs=2, seed=3)
    assert task.score(first) > task.score(llama())
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_text_as_tokens_or_in_parts_is_read_as_the_data_set_is() -> None:
    tokens = torch.cat([getattr(SPLITS, role)._rows[0] for role in ("train", "validation", "test")])
    named = {role: getattr(SPLITS, role)._rows[0] for role in ("train", "validation", "test")}
    expected = made().score(llama(), split="test")
    assert made(named, context=16).score(llama(), split="test") == expected
    assert made(tuple(named.values()), context=16).score(llama(), split="test") == expected
    assert made(tokens, context=16).score(llama()) < 0


@pytest.mark.parametrize("kind", [np.uint16, np.int32, list])
def test_a_text_may_be_an_array_of_any_whole_numbers(kind: Any) -> None:
    tokens = torch.randint(32, (400,), generator=torch.Generator().manual_seed(0))
    given = tokens.tolist() if kind is list else tokens.numpy().astype(kind)
    network = llama()
    assert made(given, network, context=8).score(network) == made(tokens, network, context=8).score(network)
    parts = {"train": given, "validation": given, "test": None} if kind is not list else tokens
    assert not made(parts, network, context=8).has_test or kind is list


def test_loaders_may_give_tokens_alone_or_in_mappings_without_labels() -> None:
    rows = torch.randint(32, (12, 9), generator=torch.Generator().manual_seed(0))
    mappings: Any = [{"input_ids": row, "note": "a text"} for row in rows]
    network = Named()
    expected = made({"train": rows, "validation": rows}, llama()).score(llama())
    for examples in (rows, [(row,) for row in rows], mappings):
        loader: Any = DataLoader(examples, 4)
        score = made((loader, loader), network if examples is mappings else llama()).score(network)
        assert score == pytest.approx(expected, rel=1e-5)


class Named(torch.nn.Module):
    """The same network, its tokens by name, as those of transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = llama()

    def forward(self, input_ids: Tensor) -> Tensor:
        found: Tensor = self.inner(input_ids)
        return found


def test_pairs_have_their_targets_where_they_are_told() -> None:
    pairs = {role: next(getattr(SPLITS, role).batches(999)) for role in ("train", "validation")}
    sets = {role: TensorDataset(*rows) for role, rows in pairs.items()}
    loaders = {role: DataLoader(rows, 8) for role, rows in sets.items()}
    for data in (sets, loaders):
        assert made(data).score(llama()) == pytest.approx(made().score(llama()), rel=1e-6)


def test_labels_of_mappings_are_moved_and_padding_does_not_count() -> None:
    tokens = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    batch = with_targets(Batch({"input_ids": tokens, "attention_mask": mask}), "here", kind="causal")
    assert batch.targets.tolist() == [[6, 7, 8, -100], [6, -100, -100, -100]]
    labels = torch.where(tokens == 0, -100, tokens)
    named = with_targets(Batch({"input_ids": tokens}, labels), "here", kind="causal")
    assert named.targets.tolist() == batch.targets.tolist()
    masked = with_targets(Batch({"input_ids": tokens}, labels), "here", kind="masked")
    assert masked.targets.tolist() == labels.tolist()


def test_a_model_of_transformers_has_the_loss_that_it_computes_itself() -> None:
    model = hugging_face.network("llama")
    rows = torch.randint(3, 61, (24, 9), generator=torch.Generator().manual_seed(0))
    data = [{"input_ids": row, "attention_mask": torch.ones(9, dtype=torch.int64)} for row in rows]
    task = made({"train": Listed(data[:8]), "validation": Listed(data[8:])}, model)
    with torch.no_grad():
        loss = model(input_ids=rows[8:], labels=rows[8:]).loss
    assert -task.score(model) == pytest.approx(float(loss.exp()), rel=1e-5)
    trained = hugging_face.network("llama")
    task.train(trained, epochs=3, seed=0)
    assert made({"train": Listed(data[:8]), "validation": Listed(data[:8])}, model).score(trained) > task.score(model)
    example = task.example_input()
    assert {name: tuple(tensor.shape) for name, tensor in example.items()} == dict.fromkeys(example, (1, 9))


@pytest.mark.parametrize(
    ("data", "settings", "kind", "message"),
    [
        (SPLITS, {"kind": "casual"}, ConfigError, "kind must be one of causal, masked, got 'casual'"),
        (SPLITS, {"kind": "masked", "mask_token": 32}, ConfigError, "mask token must be from 0 to 31"),
        (
            {"train": torch.full((90,), 32), "validation": torch.zeros(90).long()},
            {"context": 8},
            ConfigError,
            "train has tokens from 32 to 32",
        ),
        ({"train": torch.rand(90), "validation": torch.rand(90)}, {"context": 8}, DataError, "whole numbers"),
        ({"train": torch.zeros(90).long(), "val": torch.zeros(9)}, {"context": 8}, DataError, "train, validation"),
        ("a text", {}, DataError, "whole numbers, .* got str; tokenize the text first"),
        (torch.tensor(3), {}, DataError, "whole numbers"),
        ((TensorDataset(torch.rand(9, 4), torch.zeros(9)),) * 2, {}, DataError, "reads tokens, whole numbers"),
    ],
)
def test_data_that_do_not_fit_are_one_clear_error(
    data: Any, settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        made(data, **settings)


def test_a_network_without_logits_for_each_token_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"returns logits \(N, tokens, vocabulary\)"):
        made(model=nn.Sequential(nn.Embedding(40, 8), nn.Flatten(), nn.Linear(128, 40)))
    with pytest.raises(ConfigError, match="the data have 29 tokens and the model logits for 20"):
        made(model=nn.Sequential(nn.Embedding(40, 8), nn.Linear(8, 20)))
