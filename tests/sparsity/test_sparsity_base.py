"""What a sparsity training works on can be copied, and what belongs to its task is not."""

from __future__ import annotations

import copy
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from test_scale_methods import RECIPE, subject_of
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from autoprune.sparsity.group_lasso import GroupLasso
from autoprune.testing.evaluators import tiny_splits
from autoprune.training import layout as layouts
from autoprune.training.layout import Layout
from autoprune.training.loop import train
from autoprune.training.objectives.base import Objective
from autoprune.training.objectives.cross_entropy import CrossEntropy


class Task:
    """Its data cannot be copied."""

    def __init__(self) -> None:
        self.data = TensorDataset(torch.zeros(4, 1))
        self.data.lock = threading.Lock()  # type: ignore[attr-defined]

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def goal(self) -> Objective:
        return CrossEntropy()

    def batches(self, n: int) -> Any:
        return subject_of().batches(n)


def holding(task: Task) -> Any:
    return replace(subject_of(), batches=task.batches, loss=task.loss, goal=task.goal, taught=task.goal)


def test_a_copy_has_a_network_of_its_own_and_the_task_as_it_is() -> None:
    task = Task()
    subject = holding(task)
    number = subject.channels.number
    copied, other = copy.deepcopy((subject, subject))
    assert copied is other is not subject
    assert all(getattr(copied, name).__self__ is task for name in ("batches", "loss", "goal", "taught"))
    assert copied.channels is not subject.channels
    assert (copied.channels.number, copied.target, copied.recipe) == (number, subject.target, subject.recipe)
    with torch.no_grad():
        copied.network.get_parameter("head.bias").add_(1.0)
    assert not torch.equal(copied.network.get_parameter("head.bias"), subject.network.get_parameter("head.bias"))


def test_networks_whose_weights_hooks_compute_are_copied_too() -> None:
    subject = subject_of()
    torch.nn.utils.weight_norm(subject.network.get_submodule("head"))
    x = torch.zeros(2, 1, 6, 6)
    torch.testing.assert_close(copy.deepcopy(subject).network.eval()(x), subject.network.eval()(x))


def test_the_layout_of_a_sparsity_training_is_measured_where_data_cannot_be_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[Layout] = []

    def measured(offered: list[Layout], made: Any, device: torch.device) -> Layout:
        for layout in offered:
            made[layout]()
            steps.append(layout)
        return offered[0]

    monkeypatch.setattr(layouts, "_KNOWN", {})
    monkeypatch.setattr(layouts, "_measured", measured)
    method = GroupLasso()
    model = method.set_up(holding(Task()))
    recipe = RECIPE.model_copy(update={"epochs": 1, "channels_last": "auto"})
    train(model, tiny_splits().train, recipe, seed=0, device=torch.device("cpu"), terms=[method])
    assert len(steps) == 2
