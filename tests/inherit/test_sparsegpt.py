"""SparseGPT's update against the inverse of each submatrix, column by column; and what it may be used with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.errors import ConfigError
from autoprune.importance.members import rank_channels
from autoprune.inherit.base import Chain, Statistics
from autoprune.inherit.sparsegpt import SparseGPT, inverse_factor, updated
from autoprune.space.cutting.masks import masks_of
from autoprune.space.cutting.slicing import Slicer

CPU = torch.device("cpu")
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(40, 4, 6, 6, generator=GENERATOR) + 0.5


def model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one, two = nn.Conv2d(4, 8, 3, padding=1, groups=2), nn.ConvTranspose2d(8, 6, 2, stride=2)
        return nn.Sequential(one, nn.BatchNorm2d(8), nn.ReLU(), two, nn.Flatten(), nn.Linear(864, 3)).eval()


def cut_of(dense: nn.Module, ratio: float = 0.5, pattern: str = "unstructured"):  # type: ignore[no-untyped-def]
    space = autoprune.trace(dense, IMAGES[:1], options={"density": {"pattern": pattern}}).search_space
    return Slicer(dense, space, rank_channels(dense, space, "magnitude")).cut(space.uniform(ratio))


def column_by_column(weights: np.ndarray, keep: np.ndarray, hessian: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """The paper's equation (3) with the inverse of every H[i:, i:] made anew; no factor of it."""
    left = weights.copy()
    for i in range(len(hessian)):
        inverse = np.linalg.inv(hessian[i:, i:])
        lost = np.where(keep[:, i], 0.0, left[:, i])
        left[:, i:] -= lost[:, None] / inverse[0, 0] * inverse[0]
    return np.where(keep, left, 0.0)


@pytest.mark.parametrize("size", [5, 150])  # within a block of columns, and across two
def test_the_update_is_that_of_explicit_inverses(size: int) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((4 * size, size)) @ rng.standard_normal((size, size))
    second = inputs.T @ inputs / len(inputs)
    weights, keep = rng.standard_normal((3, size)), rng.random((3, size)) < 0.5
    damped = second + 0.01 * np.mean(np.diag(second)) * np.eye(size)
    factor = inverse_factor(torch.from_numpy(second)[None], 0.01)
    assert np.allclose((factor[0].T @ factor[0]).numpy(), np.linalg.inv(damped), rtol=1e-6)
    found = updated(torch.from_numpy(weights)[None], torch.from_numpy(keep)[None], factor)[0].numpy()
    expected = column_by_column(weights, keep, damped)
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-8)
    assert not found[~keep].any()

    def error(left: np.ndarray) -> float:  # type: ignore[type-arg]
        return float(np.square(inputs @ (left - weights).T).sum())

    assert error(found) < error(weights * keep)


def test_the_last_column_that_goes_is_the_optimal_brain_surgeon() -> None:
    """One weight goes, all others come later: the exact least-squares fit of the rest."""
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((50, 6)) @ rng.standard_normal((6, 6))
    weights, keep = rng.standard_normal((1, 6)), np.array([[False, True, True, True, True, True]])
    second = torch.from_numpy(inputs.T @ inputs / 50)[None]
    found = updated(torch.from_numpy(weights)[None], torch.from_numpy(keep)[None], inverse_factor(second, 1e-12))[0, 0]
    fit = np.linalg.lstsq(inputs[:, 1:], inputs @ weights[0], rcond=None)[0]
    assert np.allclose(found[1:], fit, rtol=1e-6)


def outputs_of(network: nn.Module, layer: int) -> Tensor:
    with torch.no_grad():
        return network[: layer + 1](IMAGES)  # type: ignore[index, no-any-return]


@pytest.mark.parametrize("pattern", ["unstructured", "1:2", "2x1"])
def test_layers_of_a_network_give_more_of_what_they_gave(pattern: str) -> None:
    dense = model()
    plain, fitted = cut_of(dense, pattern=pattern), cut_of(dense, pattern=pattern)
    method = SparseGPT(images=40)
    statistics = Statistics(lambda batches: [IMAGES], CPU)
    method.prepare(statistics)
    method.apply(fitted, dense, statistics)
    assert method.left_alone == {}
    for one, other in zip(masks_of(plain.network), masks_of(fitted.network), strict=True):
        assert torch.equal(one.mask, other.mask)
        assert not other.weight[~other.mask].any()
    whole = outputs_of(dense, 0)
    lost = [float((outputs_of(cut.network, 0) - whole).square().sum()) for cut in (plain, fitted)]
    assert lost[1] < lost[0]


def test_a_network_without_masks_stays_as_it_is() -> None:
    dense = model()
    cut = cut_of(dense, 1.0)
    SparseGPT().apply(cut, dense, Statistics(lambda batches: [], CPU))
    assert all(torch.equal(t, dense.state_dict()[n]) for n, t in cut.network.state_dict().items())


@pytest.mark.parametrize("method", ["least_squares", "sequential_least_squares", "merge", "reuse"])
def test_fits_of_whole_layers_are_refused(method: str) -> None:
    dense = model()
    space = autoprune.trace(dense, IMAGES[:1], options={"density": {}})
    with pytest.raises(ConfigError, match=f"inherit: {method} is for channels that are cut"):
        space.slice(dense, space.uniform(0.5), calibration=IMAGES, inherit=[method])
    Chain(["sparsegpt", "mean_fold", "bn_recalibration"]).check_fits(space.search_space)


@pytest.mark.parametrize("wrong", [{"dampening": 0}, {"dampening": 2.0}, {"dampening": True}, {"images": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="sparsegpt: "):
        SparseGPT(**wrong)  # type: ignore[arg-type]
