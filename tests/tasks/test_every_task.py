"""Every task keeps the contract, with every measure that it takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from task_nets import OfLists, Reader, SingleShot, TinyUNet, WithAuxiliary, parts, seeded_network
from tiny import Convolutions, Perceptron, X, Y, closeness, fit, pictures
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from autoprune.errors import ConfigError, EvaluationError, RegistryError
from autoprune.tasks import TASKS
from autoprune.tasks.base import Task, TaskInputs, make_task
from autoprune.testing.tasks import TaskContract
from autoprune.training.recipe import Recipe

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=1, lr=0.05, batch_size=16)
OF_CLASSES = (
    *("accuracy", "loss", "divergence", "agreement", "balanced_accuracy", "macro_f1"),
    {"name": "top_k_accuracy", "settings": {"k": 2}},
)
LABELLED = {"train": pictures(40, 0), "validation": pictures(30, 1), "test": pictures(20, 2)}
LEARNING = Recipe(epochs=2, lr=0.003, batch_size=8, optimizer="adamw")
SCENES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "multilabel": (Reader, (16,)),
    "regression": (Reader, (16,)),
    "segmentation": (TinyUNet, (16,)),
    "segmentation with an auxiliary head": (WithAuxiliary, (16,)),
    "detection": (SingleShot, (16,)),
    "detection of images of different sizes": (OfLists, (16, 20)),
}
"""Task, and what is special -> its network, and the sides of its images."""

ROWS = [
    *[("classification", {}, measure) for measure in (None, *OF_CLASSES)],
    *[("unlabelled", {}, measure) for measure in (None, "divergence", "agreement")],
    ("callable", {"score": closeness, "train": fit}, None),
    ("callable", {"score": "tiny:closeness"}, None),
    *[(name, {}, None) for name in SCENES],
    *[("multilabel", {}, measure) for measure in ("label_accuracy", "multilabel_f1", "divergence")],
    *[("regression", {}, measure) for measure in ("mean_absolute_error", "r2")],
    ("segmentation", {}, "dice"),
    ("segmentation", {"ignore_index": None}, {"name": "divergence", "settings": {"kind": "kl"}}),
]
"""Classes that need logits of several classes are for classification, others for the tasks that they are made for."""


def pictured(seed: int) -> Convolutions:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Convolutions(classes=4)


def network_of(name: str, seed: int) -> nn.Module:
    if name in SCENES:
        return seeded_network(SCENES[name][0], seed)
    return Perceptron() if name == "callable" else pictured(seed)


def made(name: str, settings: dict[str, Any], measure: Any, data: Any = None) -> Task:
    if name in SCENES:
        network, sides = SCENES[name]
        given = TaskInputs(seeded_network(network, 0), data or parts(name.split()[0], sides), LEARNING, CPU)
        return make_task(name.split()[0], settings, given, measure=measure)
    if name == "callable":
        given = TaskInputs(Perceptron(), [(X[:16], Y[:16]), X[16:32]], Recipe(epochs=RECIPE.epochs), CPU)
    else:
        given = TaskInputs(pictured(0), LABELLED if data is None else data, RECIPE, CPU)
    return make_task(name, settings, given, measure=measure)


def test_every_task_has_a_row() -> None:
    elsewhere = {"language_model", "sequence_classification"}  # in files of their own, as they read tokens
    assert {name.split()[0] for name, _, _ in ROWS} | elsewhere == set(TASKS.names())


class TestEveryTask(TaskContract):
    @pytest.fixture(params=ROWS, ids=lambda row: f"{row[0]}, {row[2]}")
    def row(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    @pytest.fixture
    def task(self, row: Any) -> Task:
        return made(*row)

    @pytest.fixture
    def model(self, row: Any) -> nn.Module:
        return network_of(row[0], 1)

    @pytest.fixture
    def base(self, row: Any) -> nn.Module:
        return network_of(row[0], 2)


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
