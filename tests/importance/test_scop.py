"""SCOP: the share of true values against a loop by hand, and what it is to tell apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.importance.evidence import Calibration
from autoprune.importance.members import channel_scores
from autoprune.space.tracing.trace import trace


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4)).double().eval()


def data(size: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(size, 3, generator=generator).double()
    return inputs, inputs.sum(dim=1).gt(0).long()


def test_shares_are_learned_by_adam_from_mixed_inputs() -> None:
    model, (inputs, labels) = network(), data()
    with torch.no_grad():
        model[1].weight.normal_()
    space = trace(model, inputs[:2]).space
    chosen = {"name": "scop", "settings": {"epochs": 4, "lr": 0.05}}
    found = channel_scores(model, space, chosen, seed=3, calibration=Calibration([(inputs, labels)], F.cross_entropy))
    share, rng = torch.full((5,), 0.5).double(), np.random.default_rng(3)
    first, second = torch.zeros(5).double(), torch.zeros(5).double()
    with torch.no_grad():
        values = model[:3](inputs)
    for step in range(1, 5):
        order = rng.permutation(12)
        given = share.clone().requires_grad_(True)
        loss = F.cross_entropy(model[3](given * values + (1 - given) * values[order]), labels)
        (slope,) = torch.autograd.grad(loss, [given])
        first, second = 0.5 * first + 0.5 * slope, 0.9 * second + 0.1 * slope**2
        share = share - 0.05 * (first / (1 - 0.5**step)) / ((second / (1 - 0.9**step)).sqrt() + 1e-8)
        share = share.clamp(0, 1)
    raw = model[1].weight.detach().abs() * (2 * share - 1)
    assert found[0] == pytest.approx((raw - raw.min()).numpy(), rel=1e-6, abs=1e-9)


def test_a_channel_that_the_loss_needs_beats_one_that_it_does_not() -> None:
    model = network()
    with torch.no_grad():
        model[1].weight.fill_(1.0)
        model[0].weight[0] = 1.0
        model[3].weight.zero_()
        model[3].weight[1, 0] = 4.0
        model[3].bias.copy_(torch.tensor([1.0, -1.0, -9.0, -9.0]))
    inputs, labels = data(64)
    space = trace(model, inputs[:2]).space
    given = Calibration([(inputs, labels)], F.cross_entropy)
    scores = channel_scores(model, space, "scop", calibration=given)[0]
    assert int(scores.argmax()) == 0
    assert scores[1:] == pytest.approx(np.zeros(4), abs=1e-6)


def test_settings_out_of_range_are_named() -> None:
    model, (inputs, labels) = network(), data()
    space = trace(model, inputs[:2]).space
    given = Calibration([(inputs, labels)], F.cross_entropy)
    for settings in ({"epochs": 0}, {"lr": 0}):
        with pytest.raises(ConfigError, match="epochs and lr must be above 0"):
            channel_scores(model, space, {"name": "scop", "settings": settings}, calibration=given)
