"""Sums over the weights of each channel, on groups of every shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attention_nets import FusedProjection, Tokens, tokens
from torch import Tensor, nn

import autoprune
from autoprune.errors import EvaluationError
from autoprune.importance import CRITERIA
from autoprune.importance.evidence import NETWORK, Calibration, needs_of
from autoprune.importance.members import channel_scores
from autoprune.importance.network import NetworkEvidence
from autoprune.space.groups import SearchSpace
from autoprune.space.options.ties import tie


class _Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.grouped = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.norm, self.up = nn.GroupNorm(2, 8), nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.last = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.grouped(torch.relu(self.first(x)))))
        return self.last(torch.relu(self.up(x)))  # type: ignore[no-any-return]


class _TiedWeight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(7, 6), nn.Linear(6, 7, bias=False)
        self.last.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.table(x)).mean(1)  # type: ignore[no-any-return]


def _perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4), nn.Linear(4, 2))


def _network(kind: str) -> tuple[nn.Module, SearchSpace, Calibration]:
    torch.manual_seed(0)
    inputs: Any = {"tied groups": torch.randn(6, 5), "transposed": torch.randn(6, 3, 6, 6)}.get(kind)
    if kind == "tied groups":
        model = _perceptron().eval()
        space = tie(autoprune.trace(model, inputs[:1], verify=False).search_space, [(0, 1)])
        return model, space, Calibration([(inputs, torch.randint(2, (6,)))], F.cross_entropy)
    if kind == "transposed":
        model = _Transposed().eval()
        given = Calibration([(inputs, torch.randn(6, 3, 12, 12))], F.mse_loss)
    elif kind == "attention":
        model, inputs = Tokens(FusedProjection()).eval(), tokens(6)
        given = Calibration([(inputs, torch.randint(5, (6,)))], F.cross_entropy)
    else:
        model, inputs = _TiedWeight().eval(), torch.randint(7, (6, 4))
        given = Calibration([(inputs, torch.randint(7, (6,)))], F.cross_entropy)
    return model, autoprune.trace(model, inputs[:1]).search_space, given


@pytest.fixture(scope="module", params=["tied groups", "transposed", "attention", "tied weight"])
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, SearchSpace, Calibration]:
    return _network(request.param)


def test_sums_are_over_the_weights_that_criteria_of_one_group_see(
    network: tuple[nn.Module, SearchSpace, Calibration],
) -> None:
    """Gathered another way: `l1` sums the absolute values of the rows of each group."""
    model, space, given = network
    evidence = NetworkEvidence(model, space, given, what="it")
    sums = evidence.sums({name: weight.detach().abs() for name, weight in evidence.weights.items()})
    expected = np.concatenate(channel_scores(model, space, "l1"))
    assert sums.numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("criterion", [n for n in CRITERIA.names() if needs_of(CRITERIA.get(n)) & NETWORK])
def test_criteria_of_whole_networks_score_groups_of_every_shape(
    network: tuple[nn.Module, SearchSpace, Calibration], criterion: str
) -> None:
    model, space, given = network
    if criterion == "dcp" and isinstance(model, _TiedWeight):
        with pytest.raises(EvaluationError, match=r"group 'last'.* tied to those that write it: choose another"):
            channel_scores(model, space, criterion, calibration=given)
        return
    scores = channel_scores(model, space, criterion, calibration=given)
    assert [len(s) for s in scores] == [group.slots for group in space.groups]
    assert all(np.isfinite(s).all() and (s >= 0).all() and len(set(s.tolist())) > 1 for s in scores)
