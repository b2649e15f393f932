"""Texts with a class each: mappings of inputs, scored by the logits of what the network returns."""

from __future__ import annotations

from typing import Any

import hugging_face
import pytest
import torch
from listed import Listed
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from autoprune.errors import ConfigError, DataError
from autoprune.tasks.base import Task, TaskInputs, make_task
from autoprune.testing.tasks import TaskContract
from autoprune.training.recipe import Recipe

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=4, lr=1e-2, batch_size=16, optimizer="adamw")


class Reader(nn.Module):
    """The mean of the embeddings of a text, without padding, and a class."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embedding, self.head = nn.Embedding(40, 8), nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        weights = attention_mask[..., None] / attention_mask.sum(1)[:, None, None]
        return {"logits": self.head((self.embedding(input_ids) * weights).sum(1))}


def texts(count: int, seed: int) -> list[dict[str, Tensor]]:
    """The class is how many of the three tokens 1, 2 and 3 there is most of."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(1, 40, (count, 12), generator=generator)
    labels = torch.randint(3, (count,), generator=generator)
    rows[:, :6] = labels[:, None] + 1
    mask = torch.ones(count, 12, dtype=torch.int64)
    mask[::2, 9:], rows[::2, 9:] = 0, 0
    return [
        {"input_ids": one, "attention_mask": other, "labels": label}
        for one, other, label in zip(rows, mask, labels, strict=True)
    ]


TEST = texts(20, 2)
DATA = {"train": Listed(texts(64, 0)), "validation": Listed(texts(30, 1)), "test": Listed(TEST)}


def made(data: Any = DATA, model: nn.Module | None = None, measure: Any = None) -> Task:
    given = TaskInputs(Reader() if model is None else model, data, RECIPE, CPU)
    return make_task("sequence_classification", {}, given, measure=measure)


class TestSequenceClassification(TaskContract):
    @pytest.fixture(params=[None, "loss", "divergence"])
    def task(self, request: pytest.FixtureRequest) -> Task:
        return made(measure=request.param)

    @pytest.fixture
    def model(self) -> nn.Module:
        return Reader(1)

    @pytest.fixture
    def base(self) -> nn.Module:
        return Reader(2)


def test_the_score_is_scikit_learns_accuracy_and_training_raises_it() -> None:
    task, network = made(), Reader()
    rows = {name: torch.stack([row[name] for row in TEST]) for name in TEST[0]}

    def known() -> float:
        with torch.no_grad():
            found = network(rows["input_ids"], rows["attention_mask"])["logits"].argmax(1)
        return 100 * float(accuracy_score(rows["labels"], found))

    assert task.score(network, split="test") == pytest.approx(known())
    before = known()
    task.train(network, epochs=10, seed=0)
    assert task.score(network, split="test") == pytest.approx(known())
    assert known() > before


def test_a_classifier_of_transformers_is_read_as_it_is() -> None:
    library = hugging_face.library()
    config = library.BertConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=12,
        num_labels=3,
    )
    task = made(model=library.BertForSequenceClassification(config).eval())
    assert task.scale.told == "accuracy in %, higher is better"
    assert set(task.example_input()) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"input_ids": torch.zeros(4).long(), "labels": torch.tensor(-1)}] * 4, "class number -1"),
        ([{"input_ids": torch.zeros(4).long(), "labels": torch.tensor([1, 2])}] * 4, "one class number each"),
        ([{"input_ids": torch.zeros(4).long(), "labels": torch.tensor(0.5)}] * 4, "one class number each"),
    ],
)
def test_targets_that_are_no_classes_are_one_clear_error(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        made({"train": Listed(data), "validation": Listed(data)})


def test_a_network_with_too_few_classes_is_one_clear_error() -> None:
    network = Reader()
    network.head = nn.Linear(8, 2)
    with pytest.raises(ConfigError, match="class numbers from 0 to 2 for a network of 2"):
        made(model=network)


def test_pairs_of_tokens_and_classes_do_as_well() -> None:
    tokens, labels = torch.randint(40, (40, 6)), torch.randint(3, (40,))
    network = nn.Sequential(nn.Embedding(40, 8), nn.Flatten(), nn.Linear(48, 3))
    data = (TensorDataset(tokens[:20], labels[:20]), TensorDataset(tokens[20:], labels[20:]))
    assert 0 <= made(data, network).score(network) <= 100


@pytest.mark.parametrize(
    ("measure", "expected"), [("macro_f1", f1_score), ("balanced_accuracy", balanced_accuracy_score)]
)
def test_measures_that_are_no_means_look_at_the_logits_too(measure: str, expected: Any) -> None:
    network = Reader()
    with torch.no_grad():
        found = [int(network(row["input_ids"][None], row["attention_mask"][None])["logits"].argmax()) for row in TEST]
    settings = {"average": "macro"} if measure == "macro_f1" else {}
    score = 100 * expected([int(row["labels"]) for row in TEST], found, **settings)
    assert made(model=network, measure=measure).score(network, split="test") == pytest.approx(score)
