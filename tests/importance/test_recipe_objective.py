"""Evidence with a loss is that of the objective that the recipe trains with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import Convolutions, pictures
from torch import Tensor, nn

import autoprune
from autoprune.data.batch import Batch
from autoprune.errors import AutopruneError, EvaluationError
from autoprune.importance.evidence import Calibration
from autoprune.importance.members import channel_scores
from autoprune.tasks.base import Task, TaskInputs, make_task
from autoprune.training.objectives.base import LossOfOutputs, Objective
from autoprune.training.recipe import Recipe

CPU = torch.device("cpu")
WEIGHTS = [0.1, 2.0, 1.0, 3.0]


def model() -> Convolutions:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Convolutions(classes=4).eval()


def task(**recipe: Any) -> Task:
    data = {"train": pictures(64, 0), "validation": pictures(32, 1)}
    given = TaskInputs(model(), data, Recipe(epochs=1, batch_size=32, **recipe), CPU)
    return make_task("classification", {}, given)


def weighted(outputs: Tensor, targets: Tensor) -> Tensor:
    each = -outputs.log_softmax(1).gather(1, targets[:, None])[:, 0]
    return (torch.tensor(WEIGHTS, dtype=torch.float64)[targets] * each).sum() / len(targets)


def smoothed(outputs: Tensor, targets: Tensor) -> Tensor:
    logs = outputs.log_softmax(1)
    return -(0.8 * logs.gather(1, targets[:, None])[:, 0] + 0.2 * logs.mean(1)).mean()


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - torch.eye(4).double()[targets]).square().mean()


@pytest.mark.parametrize(
    ("recipe", "by_hand"),
    [
        ({}, F.cross_entropy),
        ({"label_smoothing": 0.2}, smoothed),
        ({"objective": {"name": "cross_entropy", "settings": {"class_weights": WEIGHTS}}}, weighted),
        ({"objective": "mse"}, squared),
        ({"objective": {"name": "distillation", "settings": {}}}, F.cross_entropy),  # the base network has no teacher
    ],
)
@pytest.mark.parametrize("criterion", ["taylor_gate", "fisher", "taylor_weight", "ablation"])
def test_criteria_with_a_loss_see_the_objective_of_the_recipe(
    criterion: str, recipe: dict[str, Any], by_hand: Callable[[Tensor, Tensor], Tensor]
) -> None:
    trained = task(**recipe)
    space = autoprune.trace(model(), torch.zeros(1, 1, 8, 8)).search_space
    batches = [(images.double(), labels) for images, labels in trained.calibration_examples(2, seed=0)]

    def scores(objective: Any) -> Any:
        return channel_scores(model().double(), space, criterion, calibration=Calibration(batches, objective))

    ours, theirs = scores(trained.objective), scores(by_hand)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-12)
    if recipe and recipe.get("objective") != {"name": "distillation", "settings": {}}:
        plain = scores(F.cross_entropy)
        assert not all(np.allclose(one, other, rtol=1e-3) for one, other in zip(ours, plain, strict=True))


def test_the_default_is_cross_entropy_to_the_last_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(9, 4, generator=generator), torch.randint(4, (9,), generator=generator)
    objective = task().objective
    assert objective is not None
    assert torch.equal(objective(outputs, targets), F.cross_entropy(outputs, targets))


class Rebuilding(Objective):
    """How far outputs are from the brightness of the inputs."""

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        bright = batch.inputs.mean((1, 2, 3))
        return (batch.outputs(model).mean(1) - bright).square().mean()


class Augmenting(Objective):
    """Runs the network on inputs of its own."""

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        out: Tensor = model(batch.inputs + 1).square().mean()
        return out


def test_an_objective_may_read_the_inputs() -> None:
    images, labels = pictures(16, 0).tensors
    network = model()
    space = autoprune.trace(network, torch.zeros(1, 1, 8, 8)).search_space
    bright = images.mean((1, 2, 3))
    given = Calibration([(images, labels)], LossOfOutputs(Rebuilding(), "rebuilding"))
    by_hand = Calibration([(images, labels)], lambda outputs, _: (outputs.mean(1) - bright).square().mean())
    for one, other in zip(
        channel_scores(network, space, "fisher", calibration=given),
        channel_scores(network, space, "fisher", calibration=by_hand),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_one_that_runs_the_network_on_other_inputs_is_refused_by_name() -> None:
    images, labels = pictures(16, 0).tensors
    loss = LossOfOutputs(Augmenting(), "augmenting")
    with pytest.raises(EvaluationError, match="objective 'augmenting' runs the network on other inputs"):
        loss(torch.zeros(16, 4), labels, images)
    space = autoprune.trace(model(), torch.zeros(1, 1, 8, 8)).search_space
    with pytest.raises(AutopruneError, match="choose a criterion without gradients"):
        channel_scores(model(), space, "fisher", calibration=Calibration([(images, labels)], loss))
