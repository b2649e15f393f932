"""Criteria on weights against scipy, scikit-learn and formulas by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.cluster import AgglomerativeClustering
from torch import Tensor, nn

import autoprune
from autoprune.importance.evidence import GroupEvidence
from autoprune.importance.first_k import first_k
from autoprune.importance.fpgm import fpgm
from autoprune.importance.lamp import lamp
from autoprune.importance.members import channel_scores
from autoprune.importance.redundant import redundant

RNG = np.random.default_rng(0)


def rows(width: int = 14, size: int = 9, seed: int = 0) -> Tensor:
    return torch.randn(width, size, generator=torch.Generator().manual_seed(seed))


def evidence(*filters: Tensor) -> GroupEvidence:
    return GroupEvidence(len(filters[0]), filters, ())


def test_fpgm_is_the_sum_of_distances_of_filters_joined_over_layers() -> None:
    one, other = rows(), rows(size=5, seed=1)
    joined = torch.cat([one, other], dim=1).double().numpy()
    assert fpgm(evidence(one, other), RNG) == pytest.approx(torch.from_numpy(cdist(joined, joined).sum(1)))


def test_fpgm_ranks_as_the_distance_to_the_geometric_median() -> None:
    """The filter with the least sum of distances is the one nearest to their minimiser, found by Weiszfeld's steps."""
    filters = rows().double()
    median = filters.mean(dim=0)
    for _ in range(500):
        weights = 1 / (filters - median).norm(dim=1)
        median = (weights[:, None] * filters).sum(dim=0) / weights.sum()
    assert int(fpgm(evidence(filters), RNG).argmin()) == int((filters - median).norm(dim=1).argmin())


def test_equal_filters_tie_exactly() -> None:
    filters = rows()
    filters[3] = filters[7]
    scores = fpgm(evidence(filters), RNG)
    assert scores[3] == scores[7]
    assert redundant(evidence(filters), RNG).min() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kept", [1, 2, 3, 5, 8, 13, 14])
def test_the_best_k_of_redundant_are_one_of_each_of_k_clusters(kept: int) -> None:
    filters = torch.cat([rows(seed=0), rows(seed=0) + 0.4 * rows(seed=2)])[:14]
    filters[10:] = filters[:4] + 0.3 * rows(4, seed=3)
    scores = redundant(evidence(filters), RNG)
    clusters = AgglomerativeClustering(kept, metric="cosine", linkage="average").fit_predict(filters.numpy())
    best = scores.argsort(descending=True)[:kept]
    assert sorted(clusters[best.numpy()]) == list(range(kept))
    for cluster in range(kept):  # it is the one with the largest norm
        members = np.flatnonzero(clusters == cluster)
        strongest = members[int(filters[members].norm(dim=1).argmax())]
        assert strongest in best.tolist()


def test_redundant_knows_layers_of_zeros_and_of_one_channel() -> None:
    assert redundant(evidence(torch.zeros(4, 3)), RNG).tolist() == [0.0] * 4
    assert redundant(evidence(torch.ones(1, 3)), RNG).tolist() == [2.0]
    mixed = rows(4)
    mixed[2] = 0
    assert int(redundant(evidence(mixed), RNG).argmin()) == 2


def test_lamp_divides_by_all_that_are_at_least_as_strong() -> None:
    filters = rows().double()
    squares = filters.square().sum(dim=1).numpy()
    order = np.argsort(squares)
    expected = np.empty_like(squares)
    for place, channel in enumerate(order):
        expected[channel] = squares[channel] / squares[order[place:]].sum()
    assert lamp(evidence(filters), RNG).numpy() == pytest.approx(expected)
    assert lamp(evidence(torch.zeros(3, 2)), RNG).tolist() == [0.0, 0.0, 0.0]
    assert lamp(evidence(torch.ones(4, 2)), RNG).tolist() == pytest.approx([0.25] * 4)


def test_first_k_keeps_the_first() -> None:
    assert first_k(evidence(rows(5)), RNG).argsort(descending=True).tolist() == [0, 1, 2, 3, 4]


def test_the_group_norm_joins_writers_and_readers_of_a_residual_group() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, bias=False)
            self.head = nn.Linear(6 * 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = torch.relu(x + self.inner(x))
            return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model = Net()
    space = autoprune.trace(model, torch.randn(1, 2, 5, 5)).search_space
    assert model.stem.bias is not None
    expected = (
        model.stem.weight.square().sum((1, 2, 3))
        + model.stem.bias.square()
        + model.inner.weight.square().sum((1, 2, 3))
        + model.inner.weight.square().sum((0, 2, 3))
        + model.head.weight.reshape(3, 6, 4).square().sum((0, 2))
    )
    assert channel_scores(model, space, "group_norm")[0] == pytest.approx(expected.sqrt().detach().numpy(), rel=1e-5)
