"""Trainings of weights that are rounded: steps against a loop by hand, resumption, and what is left at the end."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import Convolutions, same_weights
from torch import nn

from autoprune.config.training import Recipe
from autoprune.data.batch import Batch
from autoprune.space.bits import LayerBits
from autoprune.space.cutting.rounded import bits_of, keep_bits, put_bits, rounded
from autoprune.testing.evaluators import InterruptingWatch, tiny_splits
from autoprune.training.loop import train
from autoprune.training.protocols import reinitialise
from autoprune.training.trainer import Trainer
from autoprune.training.watch import Stopped, Watch

CPU, SPLIT = torch.device("cpu"), tiny_splits().train
LAYERS = (LayerBits("conv1", "conv1.weight", (8, 1, 3, 3), 32), LayerBits("head", "head.weight", (10, 12), 32))


BITS = {"conv1.weight": 4, "head.weight": 2}


def plain() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Convolutions()


def network() -> nn.Module:
    made = plain()
    for layer in LAYERS:
        put_bits(made, layer, BITS[layer.tensor])
    return made


def trained(watch: Watch | None = None, **options: Any) -> nn.Module:
    model = network()
    train(model, SPLIT, Recipe(epochs=3, lr=0.05, batch_size=32, **options), seed=0, device=CPU, watch=watch)
    return model


def test_steps_are_those_of_a_straight_through_estimator_by_hand() -> None:
    model, by_hand = network(), plain().train()
    trainer = Trainer(model, Recipe(lr=0.05, momentum=0.0, nesterov=False, weight_decay=0.01), device=CPU, seed=0)
    exact = {name: p.detach().clone() for name, p in by_hand.named_parameters()}  # before they were rounded
    for step in range(3):
        images = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(step))
        labels = torch.arange(16) % 10
        trainer.step([Batch(images, labels)], 16, done=0.0)
        used = {n: (rounded(p, BITS[n]) if n in BITS else p.clone()).requires_grad_() for n, p in exact.items()}
        F.cross_entropy(torch.func.functional_call(by_hand, used, (images,)), labels).backward()
        for name, weights in used.items():
            assert weights.grad is not None
            exact[name] = exact[name] - 0.05 * (weights.grad + 0.01 * exact[name])
    for name, tensor in model.named_parameters():
        expected = rounded(exact[name], BITS[name]) if name in BITS else exact[name]
        torch.testing.assert_close(tensor.detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"ema": 0.5}, {"optimizer": "adamw"}], ids=["sgd", "ema", "adamw"])
def test_weights_stay_rounded_move_and_resume_to_the_bit(options: dict[str, Any]) -> None:
    whole, watch = trained(**options), InterruptingWatch()
    assert bits_of(whole) == BITS
    for name, bits in BITS.items():
        weight = whole.get_parameter(name).detach()
        assert torch.equal(rounded(weight, bits), weight)
        assert not torch.equal(weight, network().get_parameter(name))
    again = copy.deepcopy(whole)
    keep_bits(again)
    assert same_weights(again, whole)
    with pytest.raises(Stopped):
        trained(watch, **options)
    assert same_weights(trained(watch, **options), whole)


def test_scores_on_the_way_are_of_rounded_averages_and_the_training_does_not_notice() -> None:
    seen: list[bool] = []

    class Looking(InterruptingWatch):
        def restore(self) -> None:
            return None

        def epoch(self, done: int, total: int, score: Any, state: Any) -> None:
            score()

    model = network()

    def look() -> float:
        weights = {name: model.get_parameter(name).detach() for name in BITS}
        seen.append(all(torch.equal(rounded(weight, BITS[name]), weight) for name, weight in weights.items()))
        return 0.0

    recipe = Recipe(epochs=3, lr=0.05, batch_size=32, ema=0.5)
    train(model, SPLIT, recipe, seed=0, device=CPU, watch=Looking(), score=look)
    assert seen == [True] * 3
    assert same_weights(model, trained(ema=0.5))


def test_fresh_weights_are_rounded_too() -> None:
    model = network()
    reinitialise(model, seed=3)
    for name, bits in bits_of(model).items():
        weight = model.get_parameter(name).detach()
        assert torch.equal(rounded(weight, bits), weight)
