"""Coresets and frequency bands against formulas written out in numpy, and scipy's cosine transform."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.stats
import torch
from torch import nn

import autoprune
from autoprune.errors import ConfigError
from autoprune.importance.coreset import coreset
from autoprune.importance.evidence import GroupEvidence
from autoprune.importance.frequency import frequency
from autoprune.importance.members import channel_scores, group_evidence

RNG = np.random.default_rng(0)
PHI: dict[str, Any] = {
    "relu": lambda x: max(x, 0.0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "softplus": lambda x: math.log1p(math.exp(x)),
}


def linear() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3)).double().eval()


@pytest.mark.parametrize("activation", PHI)
@pytest.mark.parametrize("beta", [0.5, 4.0])
def test_coreset_is_the_largest_share_over_all_outputs(activation: str, beta: float) -> None:
    """Algorithm 2, neuron by neuron; positive and negative weights of an output are two weighted sets."""
    model = linear()
    space = autoprune.trace(model, torch.randn(1, 4).double()).search_space
    settings = {"activation": activation, "beta": beta}
    (found,) = channel_scores(model, space, {"name": "coreset", "settings": settings})
    first, bias = model[0].weight.detach().numpy(), model[0].bias.detach().numpy()
    reads = model[2].weight.detach().numpy()
    reach = [PHI[activation](beta * math.hypot(*first[p], bias[p])) for p in range(7)]
    for p in range(7):
        shares = []
        for output, sign in itertools.product(range(3), (1, -1)):
            inside = [max(sign * reads[output, q], 0) * reach[q] for q in range(7)]
            shares.append(inside[p] / sum(inside) if sum(inside) else 0.0)
        assert found[p] == pytest.approx(max(shares), rel=1e-12)


def test_where_a_batch_norm_scales_a_channel_its_scale_is_what_counts() -> None:
    model = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3)).eval()
    space = autoprune.trace(model, torch.randn(1, 2, 8, 8)).search_space
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0]))
    (found,) = channel_scores(model, space, "coreset")
    parts = np.abs([1, 2, 0.5, 0, 3])[:, None] * model[3].weight.detach().double().movedim(1, 0).flatten(1).numpy()
    parts = np.concatenate([parts.clip(min=0), (-parts).clip(min=0)], axis=1)
    sums = parts.sum(axis=0)
    assert found == pytest.approx((parts[:, sums > 0] / sums[sums > 0]).max(axis=1))


def test_sampled_channels_come_in_the_order_of_independent_draws() -> None:
    """Of three channels, every order has the probability that draws with replacement give it."""
    filters, readers = torch.eye(3), torch.tensor([[0.5], [0.3], [0.2]])
    evidence, rng = GroupEvidence(3, (filters,), (), readers=(readers,)), np.random.default_rng(1)
    number, seen = 4000, dict.fromkeys(itertools.permutations(range(3)), 0)
    for _ in range(number):
        seen[tuple((-coreset(evidence, rng, sampled=True)).argsort().tolist())] += 1
    p = [0.5, 0.3, 0.2]
    expected = [number * p[a] * p[b] / (1 - p[a]) for a, b, _ in seen]
    assert scipy.stats.chisquare([*seen.values()], expected).pvalue > 1e-3


def test_a_channel_that_cannot_be_drawn_comes_last() -> None:
    evidence = GroupEvidence(3, (torch.eye(3),), (), readers=(torch.tensor([[1.0], [0.0], [2.0]]),))
    assert int(coreset(evidence, np.random.default_rng(0), sampled=True).argmin()) == 1
    assert float(coreset(evidence, RNG)[1]) == 0.0


@pytest.mark.parametrize("settings", [{"beta": 0.0}, {"beta": math.inf}, {"activation": "tanh"}])
def test_coreset_says_which_setting_is_wrong(settings: Any) -> None:
    evidence = GroupEvidence(3, (torch.eye(3),), (), readers=(torch.eye(3),))
    with pytest.raises(ConfigError, match=next(iter(settings))):
        coreset(evidence, RNG, **settings)


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (2.0, 0.5)])
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6, 4, 1, 1), (6, 2, 5, 3)])
def test_frequency_weighs_bands_of_the_cosine_transform(shape: tuple[int, ...], a: float, b: float) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    kernel = shape[2:]
    evidence = GroupEvidence(6, (weight.reshape(6, -1), torch.ones(6, 1)), (), kernels=(kernel, ()))
    found = scipy.fft.dctn(weight.double().numpy(), axes=(2, 3), norm="ortho")
    expected = np.ones(6)  # the bias
    for u, v in itertools.product(*map(range, kernel)):
        band = (u + v) / (sum(kernel) - 1)
        expected += (1 - scipy.stats.beta(a, b).cdf(band)) * np.abs(found[:, :, u, v]).sum(axis=1)
    assert frequency(evidence, RNG, a=a, b=b).numpy() == pytest.approx(expected, rel=1e-6)


def test_smooth_kernels_count_more_than_rough_ones_of_equal_magnitude() -> None:
    smooth = torch.ones(1, 1, 3, 3)
    rough = smooth * torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]])
    evidence = GroupEvidence(2, (torch.cat([smooth, rough]).flatten(1),), (), kernels=((3, 3),))
    one, other = frequency(evidence, RNG).tolist()
    assert one > 1.4 * other > 0


def test_evidence_knows_the_kernels_of_convolutions() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, (3, 5)), nn.ReLU(), nn.Conv2d(4, 6, 1))
    model.extend([nn.Flatten(), nn.Linear(24, 5), nn.Linear(5, 2)])
    space = autoprune.trace(model, torch.randn(1, 1, 4, 6)).search_space
    found = [group_evidence(model, space, number).kernels for number in range(len(space.groups))]
    assert found == [((3, 5), ()), ((1, 1), ()), ((), ())]  # weight and bias


@pytest.mark.parametrize("settings", [{"a": 0.0}, {"b": math.nan}])
def test_frequency_says_which_setting_is_wrong(settings: Any) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} must be"):
        frequency(GroupEvidence(3, (torch.eye(3),), ()), RNG, **settings)
