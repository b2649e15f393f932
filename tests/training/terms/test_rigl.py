"""RigL: what is dropped and grown, by hand, and masks through whole trainings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.config.training import Recipe
from autoprune.errors import ConfigError
from autoprune.space.cutting.masks import counted, masks_of, put_mask
from autoprune.space.density import LayerDensity
from autoprune.testing.evaluators import InterruptingWatch, tiny_splits
from autoprune.training.loop import first_batch, train
from autoprune.training.terms.rigl import RigL
from autoprune.training.trainer import Trainer
from autoprune.training.watch import Stopped

CPU = torch.device("cpu")


def layer(pattern: str = "unstructured", block: tuple[int, int] = (1, 1)) -> nn.Module:
    """A linear layer of 2 x 4 weights, half of them left out."""
    network = nn.Sequential(nn.Linear(4, 2))
    weights = torch.tensor([[3.0, -1.0, 9.0, 9.0], [0.5, 2.0, 9.0, 9.0]])
    density = LayerDensity("0", "0.weight", (2, 4), 4, block=block, pattern=pattern)
    with torch.no_grad():
        network[0].weight.copy_(weights)  # type: ignore[operator, union-attr]
    put_mask(network, density, torch.tensor([[True, True, False, False]] * 2))
    return network


def test_the_smallest_go_and_grow_where_the_gradient_is_steepest() -> None:
    network = layer()
    weight = network[0].weight
    weight.grad = torch.tensor([[0.0, 0.0, 0.1, 5.0], [4.0, 0.0, -2.0, 0.3]])
    term = RigL(interval=1, share=1.0, until=1.0)
    term.begin(network)
    term.after_backward(network, done=0.5)  # half of 4 weights, by the cosine
    # -1 and 0.5 are dropped; 5.0 and 4.0 are steepest: 0.5 comes back with its value, the other begins at 0
    assert torch.equal(weight, torch.tensor([[3.0, 0.0, 0.0, 0.0], [0.5, 2.0, 0.0, 0.0]]))
    assert torch.equal(
        masks_of(network)[0].mask, torch.tensor([[True, False, False, True], [True, True, False, False]])
    )


def test_the_share_that_moves_falls_by_a_cosine() -> None:
    for done in (0.0, 0.2, 0.5, 0.7):
        network = nn.Sequential(nn.Linear(100, 100))
        density = LayerDensity("0", "0.weight", (100, 100), 100)
        put_mask(network, density, torch.arange(10_000).reshape(100, 100) % 2 == 0)
        before = masks_of(network)[0].mask.clone()
        network[0].weight.grad = before.logical_not().double().float() + 1.0
        term = RigL(interval=1, share=0.4)
        term.begin(network)
        term.after_backward(network, done=done)
        moved = int((before & ~masks_of(network)[0].mask).sum())
        assert moved == int(0.4 / 2 * (1 + math.cos(done * math.pi / 0.75)) * 5000)
        assert counted(network) == {"0.weight": 5000}


def test_it_rests_between_updates_and_at_the_end() -> None:
    network = layer()
    network[0].weight.grad = torch.ones(2, 4)
    before = masks_of(network)[0].mask.clone()
    term = RigL(interval=3, share=1.0)
    term.begin(network)
    for done in (0.1, 0.2, 0.75):  # the third step is due, and late
        term.after_backward(network, done=done)
    assert torch.equal(masks_of(network)[0].mask, before)


def test_blocks_move_as_a_whole() -> None:
    network = layer("1x2", (1, 2))
    network[0].weight.grad = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 4.0, 4.0]])
    term = RigL(interval=1, share=1.0, until=1.0)
    term.begin(network)
    term.after_backward(network, done=0.5)
    # of the blocks (3, -1) and (0.5, 2) the second goes, the steepest comes
    expected = torch.tensor([[True, True, False, False], [False, False, True, True]])
    assert torch.equal(masks_of(network)[0].mask, expected)


@pytest.mark.parametrize(("optimizer", "momentum"), [("sgd", 0.9), ("adam", 0.0)])
def test_a_weight_that_comes_back_begins_without_momentum(optimizer: str, momentum: float) -> None:
    """Its first step is that of a parameter whose optimizer is new; without, it would be that of old gradients."""
    network, inputs = masked_network(), tiny_splits().train
    recipe = Recipe(
        epochs=1, lr=0.1, batch_size=32, weight_decay=0, momentum=momentum, nesterov=False, optimizer=optimizer
    )
    trainer = Trainer(network, recipe, device=CPU, seed=0, terms=[])
    batch, (masked,) = first_batch(inputs, 32, seed=0), masks_of(network)
    row, column = (int(place) for place in masked.mask.nonzero()[0])
    for _ in range(3):
        trainer.step([batch], 32, done=0.5)
    gathered = trainer._optimizer.state[masked.weight]["momentum_buffer" if optimizer == "sgd" else "exp_avg"]
    assert gathered[row, column] != 0
    masked.mask[row, column] = False
    trainer.step([batch], 32, done=0.5)
    assert gathered[row, column] == 0
    assert bool(gathered[masked.mask].any())
    masked.mask[row, column] = True
    trainer.step([batch], 32, done=0.5)
    slope, share = masked.weight.grad[row, column], 1.0 if optimizer == "sgd" else 0.1
    assert float(gathered[row, column]) == pytest.approx(share * float(slope), rel=1e-5)


@pytest.mark.parametrize("wrong", [{"interval": 0}, {"interval": True}, {"share": 0}, {"share": 1.5}, {"until": "x"}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="term 'rigl': "):
        RigL(**wrong)  # type: ignore[arg-type]


def test_patterns_that_it_would_break_are_refused() -> None:
    with pytest.raises(ConfigError, match="keeps 2:4, which weights that grow anywhere would break"):
        RigL().begin(layer("2:4"))


def masked_network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.ReLU(), nn.Linear(20, 4))
    chosen = torch.from_numpy(np.random.default_rng(0).random((20, 36)) < 0.3)
    put_mask(network, LayerDensity("1", "1.weight", (20, 36), 60), chosen)
    return network


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("moving", [False, True])
def test_masks_stay_masks_and_a_resumed_training_ends_with_the_same(optimizer: str, moving: bool) -> None:
    recipe = Recipe(epochs=3, lr=0.01, batch_size=32, weight_decay=0.1, ema=0.9, clip_norm=1.0, optimizer=optimizer)

    def trained(watch: InterruptingWatch | None = None) -> nn.Module:
        network, terms = masked_network(), [RigL(interval=2, until=1.0)] if moving else []
        train(network, tiny_splits().train, recipe, seed=4, device=CPU, terms=terms, watch=watch)
        return network

    whole, watch = trained(), InterruptingWatch()
    with pytest.raises(Stopped):
        trained(watch)
    resumed = trained(watch)
    before, (masked,) = masked_network(), masks_of(whole)
    assert counted(whole) == counted(before)
    assert moving != torch.equal(masked.mask, masks_of(before)[0].mask)
    assert not masked.weight[~masked.mask].any()
    assert bool((masked.weight != 0).sum() > 0.9 * masked.mask.sum())
    assert torch.equal(masks_of(resumed)[0].mask, masked.mask)
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in whole.state_dict().items())
