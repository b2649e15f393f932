"""Layers that are not trained: weights and statistics stay, flags come back, patterns that name nothing are errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoprune.config.training import Recipe
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError
from autoprune.testing.evaluators import TinyNet, tiny_splits
from autoprune.training.freezing import begin_training
from autoprune.training.loop import train
from autoprune.training.objectives.base import Objective
from autoprune.training.recipe import rehearse

CPU = torch.device("cpu")


def test_what_is_frozen_stays_and_everything_else_trains() -> None:
    network = TinyNet()
    network.head.bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    recipe = Recipe(epochs=1, lr=0.05, batch_size=32, freeze=["features.0", "features.1.*"], optimizer="adamw", ema=0.9)
    train(network, tiny_splits().train, recipe, seed=0, device=CPU)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith(("features.0.", "features.1.")) for name in changed)
    assert {"features.3.weight", "features.4.running_mean", "head.weight"} <= changed
    assert [n for n, p in network.named_parameters() if not p.requires_grad] == ["head.bias"]


def test_norms_without_weights_follow_those_that_train_unless_they_are_named() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, affine=False)
    )
    assert [module.training for module in begin_training(network, ["0"])] == [False, True, True, True]
    assert [module.training for module in begin_training(network, ["0", "1"])] == [False, False, True, True]


class Broken(Objective):
    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        return (model(batch.inputs) * torch.nan).mean()


def test_flags_come_back_when_the_training_fails() -> None:
    network = TinyNet()
    recipe = Recipe(epochs=3, lr=1e6, batch_size=32, freeze=["head"], objective={"name": f"{__name__}:Broken"})
    with pytest.raises(EvaluationError, match="the loss is nan"):
        train(network, tiny_splits().train, recipe, seed=0, device=CPU)
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (["feature"], "freeze names 'feature', which no parameter or module.*Did you mean 'feature"),
        (["features", "hea*"], "leaves nothing to train"),
    ],
)
def test_patterns_that_make_no_sense_are_one_clear_error(freeze: list[str], message: str) -> None:
    batch = Batch(*next(tiny_splits().train.batches(8)))
    with pytest.raises(ConfigError, match=message):
        rehearse(Recipe(freeze=freeze), TinyNet(), batch, device=CPU)
