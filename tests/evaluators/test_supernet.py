"""Shared weights: what a step trains is checked against masked full networks, which share no code with slices."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.config.training import Recipe
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError
from autoprune.evaluators.artefact import prepared
from autoprune.evaluators.making import make_evaluator
from autoprune.evaluators.sandwich import SharedWeights, distance
from autoprune.evaluators.supernet import reverse
from autoprune.importance.members import rank_channels
from autoprune.space.tracing.trace import trace
from autoprune.testing.evaluators import EvaluatorContract, Make, tiny_bench
from autoprune.training.trainer import Trainer


class TestSupernet(EvaluatorContract):
    @pytest.fixture(params=[{}, {"sides": "both", "weights": "fresh", "lr_share": 1.0}], ids=["left", "both"])
    def make(self, request: pytest.FixtureRequest) -> Make:
        return lambda factory: make_evaluator("supernet", factory, {"epochs": 2, "drawn": 1, **request.param})


class _Plain(nn.Module):
    """No norms and no dropout, so that a narrower network is the full one with zeros in place of what it lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 1, 8, 8) to logits (N, 3)."""
        logits: Tensor = self.c(self.b(self.a(x).relu()).relu().mean((2, 3)))
        return logits

    def masked(self, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """With some channels at zero."""
        hidden = self.a(x).relu() * first[:, None, None]
        logits: Tensor = self.c((self.b(hidden).relu() * second[:, None, None]).mean((2, 3)))
        return logits


def test_a_step_trains_the_full_network_by_labels_and_the_others_by_its_outputs() -> None:
    torch.manual_seed(0)
    model, x, y = _Plain(), torch.randn(7, 1, 8, 8), torch.randint(3, (7,))
    space = trace(model, x[:1]).space
    ranking = rank_channels(model, space, "l2")
    rankings = (ranking, reverse(ranking))
    widths = space.uniform(0.5)
    ours, reference = copy.deepcopy(model), copy.deepcopy(model)
    with SharedWeights(space, rankings, widths, drawn=0).trained_with(ours.train()):
        F.cross_entropy(ours(x), y).backward()
    full = reference(x)
    loss = F.cross_entropy(full, y)
    for order in rankings:
        kept = {
            g.name: torch.from_numpy((r < w).astype("f4")) for g, r, w in zip(space.groups, order, widths, strict=True)
        }
        narrower = reference.masked(x, kept["a"], kept["b"])
        loss = loss + F.kl_div(
            narrower.log_softmax(1), full.detach().log_softmax(1), reduction="batchmean", log_target=True
        ) / len(rankings)
    loss.backward()
    for (name, mine), theirs in zip(ours.named_parameters(), reference.parameters(), strict=True):
        assert mine.grad is not None, name
        assert theirs.grad is not None, name
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-7, msg=name)


def test_outside_of_a_training_nothing_is_beside_the_network() -> None:
    model, x = _Plain(), torch.randn(2, 1, 8, 8)
    space = trace(model, x[:1]).space
    shared = SharedWeights(space, (rank_channels(model, space, "l2"),), space.smallest)
    with shared.trained_with(model):
        assert model.eval()(x).grad_fn is not None
        assert "_Beside" not in str(model(x).grad_fn)
        assert "_Beside" in str(model.train()(x).grad_fn)
    assert "_Beside" not in str(model(x).grad_fn)
    assert not model._forward_hooks


def test_narrower_networks_weigh_the_same_however_many_batches_make_one_step() -> None:
    """Without norms a step is that of all its examples, in one batch or in three unequal ones."""
    torch.manual_seed(0)
    model, images, labels = _Plain(), torch.randn(12, 1, 8, 8), torch.arange(12) % 3
    nn.init.normal_(model.c.weight, std=20.0)  # narrower networks then say something else
    space = trace(model, images[:1]).space
    shared = SharedWeights(space, (rank_channels(model, space, "l2"),), space.uniform(0.5), drawn=0)
    recipe = Recipe(lr=0.1, weight_decay=0.0, accumulate_batches=3)
    whole = Batch(images, labels)
    models, losses = [copy.deepcopy(model).train() for _ in range(2)], []
    for one, batches in zip(models, ([whole], [whole.part(0, 6), whole.part(6, 10), whole.part(10, 12)]), strict=True):
        with shared.trained_with(one):
            losses.append(Trainer(one, recipe, device=torch.device("cpu"), seed=0).step(batches, 12, done=0.1))
    torch.testing.assert_close(*losses)
    assert losses[0] > F.cross_entropy(model(images), labels) + 0.1, "what narrower networks lose counts"
    for p, q in zip(*(one.parameters() for one in models), strict=True):
        torch.testing.assert_close(p, q)


def test_what_is_no_logits_is_compared_by_relative_squares() -> None:
    taught = {"a": torch.tensor([[3.0], [4.0]]), "b": torch.tensor([0, 1])}
    near = {"a": torch.tensor([[3.0], [5.0]]), "b": torch.tensor([0, 1])}
    assert distance(near, taught) == pytest.approx((0 + 1 / 16) / 2)
    logits = torch.tensor([[0.0, -torch.inf, 1.0]])
    assert distance(logits, logits) == 0


def test_random_widths_lie_between_the_narrowest_and_the_full_ones() -> None:
    space = tiny_bench().space
    narrowest = space.uniform(0.4)
    drawn = [w for _ in range(50) for w in SharedWeights(space, (), narrowest, 3)._widths()]
    assert drawn[0] == narrowest
    for place, group in enumerate(space.groups):
        seen = {widths[place] for widths in drawn}
        assert seen == {choice for choice in group.choices if choice >= narrowest[place]}


def test_after_it_narrow_slices_work_that_did_not_before(tmp_path: Path) -> None:
    factory = tiny_bench()
    made = make_evaluator("supernet", factory, {"epochs": 6, "lr_share": 1.0})
    made.load(prepared(made, tmp_path, seed=0))
    sliced = make_evaluator("inherited", replace(factory, inherit=("bn_recalibration",)), {})
    for ratio in (0.15, 0.25, 0.5):
        widths = factory.space.uniform(ratio)
        assert float(made.evaluate(widths, seed=0)) > float(sliced.evaluate(widths, seed=0)) + 20, ratio


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sides": "right"}, "sides must be one of left, both, got 'right'"),
        ({"weights": 1}, "weights must be one of inherited, fresh, got 1"),
        ({"narrowest": 0}, "narrowest must be a number above 0 and at most 1, got 0"),
        ({"lr_share": True}, "lr_share must be a number above 0"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"drawn": -1}, "drawn must be at least 0"),
    ],
)
def test_wrong_settings_of_a_supernet_say_what_is_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_evaluator("supernet", tiny_bench(), settings)
