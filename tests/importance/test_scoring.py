"""Settings that every criterion has: reduction over layers, normalisation over groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.config.job import SearchOptions
from autoprune.errors import ConfigError
from autoprune.importance import CRITERIA
from autoprune.importance.evidence import Calibration
from autoprune.importance.members import channel_scores
from autoprune.space.groups import SearchSpace


class Branches(nn.Module):
    """Two layers write the same six channels, two layers read them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(2, 6, 1)
        self.norm, self.head, self.side = nn.BatchNorm2d(6), nn.Conv2d(6, 3, 1), nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.one(x)) + self.other(x))
        return self.head(x) + self.side(x)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def branches() -> tuple[Branches, SearchSpace]:
    torch.manual_seed(0)
    model = Branches().eval()
    return model, autoprune.trace(model, torch.randn(1, 2, 5, 5)).search_space


def scores(given: tuple[nn.Module, SearchSpace], name: str, **settings: Any) -> np.ndarray[Any, Any]:
    batches = [(torch.randn(8, 2, 5, 5, generator=torch.Generator().manual_seed(1)), None)]
    chosen = {"name": name, "settings": settings}
    return channel_scores(*given, chosen, calibration=Calibration(batches))[0]


def norms(model: Branches) -> np.ndarray[Any, Any]:
    """(2, 6) norms of weights with bias, layer by layer."""
    found = []
    for layer in (model.one, model.other):
        assert layer.bias is not None
        found.append((layer.weight.square().sum((1, 2, 3)) + layer.bias.square()).sqrt().detach().double().numpy())
    return np.stack(found)


def test_a_reduction_joins_the_scores_of_each_layer(branches: tuple[Branches, SearchSpace]) -> None:
    by_layer = norms(branches[0])
    by_hand = {
        "sum": by_layer.sum(0),
        "mean": by_layer.mean(0),
        "max": by_layer.max(0),
        "l2": np.linalg.norm(by_layer, axis=0),
        "first": by_layer[0],
    }
    for reduction, expected in by_hand.items():
        assert scores(branches, "l2", reduction=reduction) == pytest.approx(expected, rel=1e-5)


def test_the_default_is_how_the_criterion_itself_joins_layers(branches: tuple[Branches, SearchSpace]) -> None:
    assert scores(branches, "l2") == pytest.approx(scores(branches, "l2", reduction="l2"), rel=1e-5)
    assert scores(branches, "l1") == pytest.approx(scores(branches, "l1", reduction="sum"), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "reduction"),
    [("wanda", "sum"), ("inbound_variance", "sum"), ("obs", "sum"), ("hrank", "mean"), ("chip", "mean")],
)
def test_scores_that_join_readers_do_so_by_reduction_as_well(
    branches: tuple[Branches, SearchSpace], name: str, reduction: str
) -> None:
    assert scores(branches, name) == pytest.approx(scores(branches, name, reduction=reduction), rel=1e-5)
    first = scores(branches, name, reduction="first")
    same_inputs = reduction == "mean"  # both readers get the same
    assert (scores(branches, name) == pytest.approx(first, rel=1e-5)) == same_inputs


def test_normalised_scores_have_the_norm_one(branches: tuple[Branches, SearchSpace]) -> None:
    plain = scores(branches, "l1")
    assert scores(branches, "l1", normalise="none").tolist() == plain.tolist()
    assert scores(branches, "l1", normalise="mean") == pytest.approx(plain / plain.mean())
    assert scores(branches, "l1", normalise="max") == pytest.approx(plain / plain.max())
    assert scores(branches, "l1", normalise="sum") == pytest.approx(plain / plain.sum())
    assert scores(branches, "l1", normalise="l2") == pytest.approx(plain / np.linalg.norm(plain))


def test_a_group_of_zeros_stays_one(branches: tuple[Branches, SearchSpace]) -> None:
    quiet = Branches()
    with torch.no_grad():
        for parameter in quiet.parameters():
            parameter.zero_()
    assert scores((quiet, branches[1]), "l1", normalise="mean").tolist() == [0.0] * 6


def test_wrong_values_are_named(branches: tuple[Branches, SearchSpace]) -> None:
    with pytest.raises(
        ConfigError, match=r"criterion 'l1': reduction cannot be 'men'; choose one of sum.*Did you mean"
    ):
        scores(branches, "l1", reduction="men")
    with pytest.raises(ConfigError, match="criterion 'l1': normalise cannot be 3; choose one of l2, mean"):
        scores(branches, "l1", normalise=3)
    with pytest.raises(ConfigError, match=r"criterion 'apoz' has no scores layer by layer: leave .*'reduction' out"):
        scores(branches, "apoz", reduction="sum")


def test_jobs_name_them_like_other_settings_and_the_table_of_criteria_explains_them() -> None:
    job = SearchOptions(criterion={"name": "l2", "settings": {"reduction": "mean", "normalise": "max"}})  # type: ignore[arg-type]
    assert job.criterion.label == 'l2(normalise="max", reduction="mean")'
    assert set(CRITERIA.shared) == {"reduction", "normalise"}
