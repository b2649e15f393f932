"""Every task keeps the contract, with every measure that it takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import Convolutions, Perceptron, X, Y, closeness, fit, pictures
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from autoprune.errors import ConfigError, EvaluationError, RegistryError
from autoprune.measures import MEASURES
from autoprune.tasks import TASKS
from autoprune.tasks.base import Task, TaskInputs, make_task
from autoprune.testing.tasks import TaskContract
from autoprune.training.recipe import Recipe

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=1, lr=0.05, batch_size=16)
LABELLED = {"train": pictures(40, 0), "validation": pictures(30, 1), "test": pictures(20, 2)}
ROWS = [
    *[("classification", {}, measure) for measure in (None, *MEASURES.names())],
    *[("unlabelled", {}, measure) for measure in (None, "divergence", "agreement")],
    ("callable", {"score": closeness, "train": fit}, None),
    ("callable", {"score": "tiny:closeness"}, None),
]


def pictured(seed: int) -> Convolutions:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Convolutions(classes=4)


def made(name: str, settings: dict[str, Any], measure: Any, data: Any = None) -> Task:
    if name == "callable":
        given = TaskInputs(Perceptron(), [(X[:16], Y[:16]), X[16:32]], RECIPE, CPU)
    else:
        given = TaskInputs(pictured(0), LABELLED if data is None else data, RECIPE, CPU)
    return make_task(name, settings, given, measure=measure)


def test_every_task_has_a_row() -> None:
    assert {name for name, _, _ in ROWS} == set(TASKS.names())


class TestEveryTask(TaskContract):
    @pytest.fixture(params=ROWS, ids=lambda row: f"{row[0]}, {row[2]}")
    def row(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    @pytest.fixture
    def task(self, row: Any) -> Task:
        return made(*row)

    @pytest.fixture
    def model(self, row: Any) -> nn.Module:
        return Perceptron() if row[0] == "callable" else pictured(1)

    @pytest.fixture
    def base(self, row: Any) -> nn.Module:
        return Perceptron() if row[0] == "callable" else pictured(2)


def test_the_default_measure_of_classification_is_accuracy_and_changes_no_fingerprint() -> None:
    plain, named, other = (made("classification", {}, measure) for measure in (None, "accuracy", "loss"))
    assert plain.scale.told == "accuracy in %, higher is better"
    assert plain.fingerprint == named.fingerprint != other.fingerprint
    assert plain.scored(pictured(1)) == named.scored(pictured(1))
    assert other.scored(pictured(1)).value < 0  # held with the other sign


def test_lower_is_better_is_held_negated_and_read_with_its_own_sign() -> None:
    task = made("unlabelled", {}, "divergence").compared_with(pictured(0))
    near, far = (task.score(pictured(seed)) for seed in (0, 1))
    assert near == 0.0 > far
    assert task.scale.turned(far) == -far
    assert task.score_range == (-float("inf"), 0.0)
    assert task.scale.told == "divergence in nats, lower is better"


def test_a_task_that_compares_says_so_where_there_is_no_base_network() -> None:
    with pytest.raises(EvaluationError, match=r"compares with a base network.*task\.compared_with\(base\)"):
        made("unlabelled", {}, "divergence").score(pictured(1))


def test_being_compared_with_the_same_network_again_keeps_what_was_computed() -> None:
    base = pictured(0)
    for row in (("unlabelled", {}, None), ("classification", {}, "agreement")):
        task = made(*row).compared_with(base)
        assert task.compared_with(base) is task
        assert task.compared_with(pictured(0)) is not task
    plain = made("classification", {}, None)
    assert plain.compared_with(base) is plain


def test_targets_are_ignored_and_need_not_be_there() -> None:
    images = [LABELLED[role].tensors[0] for role in ("train", "validation", "test")]
    scores = [
        made("unlabelled", {}, None, data).compared_with(pictured(0)).scored(pictured(1))
        for data in (
            LABELLED,
            tuple(TensorDataset(part) for part in images),
            tuple(images),
            {"train": DataLoader(TensorDataset(images[0])), "validation": images[1]},
        )
    ]
    assert len({score.value for score in scores}) == 1


@pytest.mark.parametrize(
    ("name", "settings", "measure", "kind", "message"),
    [
        ("classificaton", {}, None, RegistryError, "unknown task 'classificaton'.*Did you mean 'classification'"),
        ("classification", {"classes": 3}, None, ConfigError, "task 'classification' has no setting 'classes'"),
        ("unlabelled", {}, "accuracy", ConfigError, "'accuracy' needs targets, which the task 'unlabelled' does not"),
        ("unlabelled", {}, "divergenc", RegistryError, "unknown measure.*Did you mean 'divergence'"),
        ("callable", {}, None, ConfigError, "needs the setting 'score': module:function that takes a network"),
        ("callable", {"score": "tiny:nothing"}, None, RegistryError, "has no 'nothing'"),
        (
            "callable",
            {"score": "tiny:X"},
            None,
            ConfigError,
            "must be a function or module:function, got 'tiny:X'",
        ),
        ("callable", {"score": closeness}, "loss", ConfigError, "has its own measure and takes no other"),
    ],
)
def test_a_task_that_cannot_be_made_is_one_clear_error(
    name: str, settings: dict[str, Any], measure: str | None, kind: type, message: str
) -> None:
    with pytest.raises(kind, match=message):
        made(name, settings, measure)
