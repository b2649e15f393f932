from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import same_weights
from torch import Tensor, nn

from autoprune.config.training import Recipe
from autoprune.data.batch import Batch
from autoprune.testing.evaluators import InterruptingWatch, TinyNet, tiny_splits
from autoprune.training.averaging import WeightAverage
from autoprune.training.loop import train
from autoprune.training.trainer import Trainer
from autoprune.training.watch import Stopped

CPU = torch.device("cpu")


class Masked(nn.Module):
    """Has all kinds of tensors: trained, frozen, statistics, counters, masks of infinities."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.frozen = nn.Parameter(torch.tensor([-torch.inf, 0.1]), requires_grad=False)
        self.register_buffer("mask", torch.tensor([-torch.inf, torch.inf, 0.1]), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


def test_the_average_is_that_of_a_loop_by_hand() -> None:
    torch.manual_seed(0)
    model = Masked()
    trainer = Trainer(model, Recipe(ema=0.6, lr=0.3, epochs=1), device=CPU, seed=0)
    followed = ("linear.weight", "linear.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    expected = {name: model.state_dict()[name].double() for name in followed}
    for t in range(12):
        trainer.step([Batch(torch.randn(8, 4), torch.arange(8) % 4)], 8, done=t / 12)
        decay = min(0.6, (1 + t) / (10 + t))
        for name in followed:
            expected[name] = decay * expected[name] + (1 - decay) * model.state_dict()[name].double()
    last = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen = trainer.averaged(lambda: float(model.linear.weight.detach().double().sum()))
    assert seen == pytest.approx(float(expected["linear.weight"].sum()), abs=1e-5)
    assert all(torch.equal(tensor, last[name]) for name, tensor in model.state_dict().items())
    trainer.finish()
    for name in followed:
        torch.testing.assert_close(model.state_dict()[name].double(), expected[name], rtol=1e-5, atol=1e-6)
        assert not torch.equal(model.state_dict()[name], last[name])
    assert model.norm.num_batches_tracked == 12
    assert torch.equal(model.mask, torch.tensor([-torch.inf, torch.inf, 0.1]))
    assert torch.equal(model.frozen, torch.tensor([-torch.inf, 0.1]))


def test_a_scoring_that_fails_leaves_the_weights_of_the_training() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        model.weight.add_(1)
    now = model.weight.detach().clone()
    seen = []

    def fail() -> None:
        with average.in_place():
            seen.append(model.weight.detach().clone())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not torch.equal(seen[0], now)
    assert torch.equal(model.weight, now)


def trained(recipe: Recipe, **watching: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TinyNet()
    train(model, tiny_splits().train, recipe, seed=1, device=CPU, **watching)  # type: ignore[arg-type]
    return model


RECIPES = [
    {"ema": 0.9},
    {"optimizer": "adamw", "ema": 0.9, "schedule": "one_cycle", "decay_norms": False},
    {"optimizer": {"name": "rmsprop", "settings": {"momentum": 0.9}}, "clip_norm": 0.1, "lr": 0.001},
    {"accumulate_batches": 3, "terms": ["bn_l1"], "ema": 0.5},
    {"optimizer": "adagrad", "channels_last": True, "objective": "mse"},
]


@pytest.mark.parametrize("options", RECIPES)
def test_everything_resumes_in_the_middle_bit_for_bit(options: dict[str, object], tmp_path: Path) -> None:
    recipe, watch = Recipe(**{"epochs": 3, "lr": 0.02, "batch_size": 32, **options}), InterruptingWatch()
    whole = trained(recipe)
    with pytest.raises(Stopped):
        trained(recipe, watch=watch)
    assert same_weights(trained(recipe, watch=watch), whole)
    assert watch.epochs == [1, 2, 3]


@pytest.mark.parametrize("options", RECIPES)
def test_each_of_them_changes_the_weights(options: dict[str, object]) -> None:
    plain = {"epochs": 1, "lr": 0.02, "batch_size": 32}
    assert not same_weights(trained(Recipe(**plain)), trained(Recipe(**{**plain, **options})))


def test_the_state_of_another_recipe_is_left_alone() -> None:
    watch, other = InterruptingWatch(), {"epochs": 2, "lr": 0.02, "batch_size": 32}
    with pytest.raises(Stopped):
        trained(Recipe(**other), watch=watch)
    adam = Recipe(**other, optimizer="adam")
    assert same_weights(trained(adam, watch=watch), trained(adam))


def test_what_a_watch_is_told_is_the_score_of_the_averages_and_the_training_does_not_notice() -> None:
    recipe, watch = Recipe(epochs=2, lr=0.1, batch_size=32, ema=0.9), InterruptingWatch()
    model, seen = TinyNet(), []
    with pytest.raises(Stopped):
        train(
            model,
            tiny_splits().train,
            recipe,
            seed=1,
            device=CPU,
            watch=watch,
            score=lambda: seen.append(model.head.weight.detach().clone()) or 0.0,
        )
    state = watch.restore()
    assert state is not None
    assert torch.equal(seen[0], state["average"]["averages"]["head.weight"])
    assert not torch.equal(seen[0], state["model"]["head.weight"])
    assert torch.equal(model.head.weight, state["model"]["head.weight"])
