"""Dynamic networks: gates against numpy, costs for each example, and the cut network where nothing is trained yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.errors import ConfigError
from autoprune.evaluators.boosted import BoostedNetwork, ChannelSaliency
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.fbs import FeatureBoosting
from autoprune.evaluators.trained import train_and_score
from autoprune.importance.members import rank_channels
from autoprune.space.cutting.slicing import slice_model
from autoprune.space.groups import SearchSpace
from autoprune.testing.evaluators import tiny_bench
from autoprune.zoo.densenet import densenet40
from autoprune.zoo.resnet import resnet20


def rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_a_gate_is_that_of_the_paper_in_numpy() -> None:
    gate = ChannelSaliency(5, np.arange(7)[::-1].copy(), 3, sparsity=0.25)
    with torch.no_grad():
        gate.phi.copy_(rows(7, 5))
        gate.rho.copy_(rows(7))
    pooled = rows(4, 5).abs()
    found = gate(pooled)
    salient = np.maximum(pooled.numpy() @ gate.phi.detach().numpy().T + gate.rho.detach().numpy(), 0)
    expected = np.zeros_like(salient)
    for example, values in enumerate(salient):
        for channel in np.argsort(-values)[:3]:
            expected[example, channel] = values[channel]
    assert np.allclose(found.detach().numpy(), expected, atol=1e-6)
    assert len({tuple(np.flatnonzero(row)) for row in expected}) > 1  # examples choose for themselves
    weights = rows(4, 7)
    (found * weights).sum().backward()
    chosen = (weights.numpy() * (expected > 0) + 0.25 / 4) * (salient > 0)
    assert gate.rho.grad is not None
    assert np.allclose(gate.rho.grad.numpy(), chosen.sum(0), atol=1e-5)


def spaces() -> list[tuple[str, nn.Module, Tensor, dict[str, Any]]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        residual = resnet20(in_channels=1, classes=10, width=0.25)
        dense = densenet40(in_channels=1, classes=10, width=0.5)
        flat = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 12), nn.Tanh(), nn.Linear(12, 3)
        )
    x = rows(5, 1, 8, 8)
    return [("resnet", residual, x, {}), ("densenet", dense, x, {}), ("flattened", flat, x, {})]


@pytest.mark.parametrize(
    ("name", "model", "x", "options"), spaces(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_before_any_training_it_is_the_cut_network(
    name: str, model: nn.Module, x: Tensor, options: dict[str, Any]
) -> None:
    model.eval()
    space = autoprune.trace(model, x[:1], options=options).search_space
    ranking = rank_channels(model, space, "l2")
    rng = np.random.default_rng(0)
    for widths in (space.full, space.smallest, tuple(int(rng.choice(g.choices)) for g in space.groups)):
        boosted = BoostedNetwork(model, space, widths, ranking, sparsity=0.0).eval()
        cut = slice_model(model, space, widths, ranking).eval()
        with torch.no_grad():
            torch.testing.assert_close(boosted(x), cut(x), rtol=1e-4, atol=1e-5)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_every_example_uses_as_many_channels_as_the_widths_say_and_chooses_them_itself() -> None:
    factory = tiny_bench()
    evaluator = FeatureBoosting(factory, epochs=1)
    widths = factory.space.uniform(0.5)
    network = evaluator.boosted(widths)
    with torch.no_grad():  # as after a long training
        for gate in network.saliencies:
            gate.phi.copy_(rows(*gate.phi.shape))  # type: ignore[operator, union-attr]
    factory.task.train(network, epochs=1, seed=0, lr=0.01)
    seen: list[Tensor] = []
    for gate in network.saliencies:
        gate.register_forward_hook(lambda module, given, made: seen.append(made.detach()))
    network.eval()(rows(64, 1, 6, 6))
    for made, width, group in zip(seen, widths, factory.space.groups, strict=True):
        assert made.shape == (64, group.width)
        assert int((made != 0).sum(1).max()) <= width
    assert any(len({tuple(row.nonzero()[:, 0].tolist()) for row in made}) > 1 for made in seen)


def test_with_gates_that_do_not_learn_it_trains_and_scores_as_the_cut_network() -> None:
    factory = tiny_bench()
    widths, scores = factory.space.uniform(0.5), []
    network = FeatureBoosting(factory).boosted(widths)
    network.saliencies.requires_grad_(False)
    for one in (network, factory.heirs("training")(widths)):
        scores.append(train_and_score(factory.task, one, factory.task.score, epochs=2, seed=0, lr=0.01).score)
    assert scores[0] == pytest.approx(scores[1], abs=1.0)  # sums are of more terms; an example of 128


def test_what_cannot_be_chosen_for_each_example_is_refused() -> None:
    factory = tiny_bench()

    def refused(space: SearchSpace, told: str) -> None:
        changed = CandidateFactory(factory.model, space, factory.ranking, factory.task, factory.base_epochs)
        with pytest.raises(ConfigError, match=told):
            FeatureBoosting(changed)

    refused(replace(factory.space, form="graph"), "as its traced graph")
    first, *others = factory.space.groups
    refused(replace(factory.space, groups=(replace(first, kind="heads"), *others)), "is one of heads")
    for settings, told in (
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"lr_share": 0}, "lr_share must be a number above 0"),
        ({"sparsity": -1.0}, "sparsity must be a number of at least 0"),
    ):
        with pytest.raises(ConfigError, match=told):
            FeatureBoosting(factory, **settings)
