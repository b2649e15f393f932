"""Net-Trim against scikit-learn's path of the lasso, which solves its program exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import lars_path_gram
from torch import Tensor, nn

import autoprune
from autoprune.errors import ConfigError
from autoprune.importance.evidence import Calibration
from autoprune.importance.members import channel_scores
from autoprune.importance.net_trim import net_trim

X = torch.randn(80, 6, generator=torch.Generator().manual_seed(0)).double()
EXACT = {"penalties": 300, "iterations": 300, "lowest": 1e-4}


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double().eval()


def entries(inputs: Tensor, weight: Tensor) -> np.ndarray[Any, Any]:
    """(outputs, D) λ at which each weight enters the path of one output."""
    u = inputs.numpy()
    gram = u.T @ u / len(u)
    found = np.zeros(weight.shape)
    for output, row in enumerate(weight.detach().numpy()):
        alphas, _, path = lars_path_gram(gram @ row, gram, n_samples=1, method="lasso")
        for j in range(len(row)):
            first = int(np.flatnonzero(path[j])[0])  # it is 0 at the λ before, from which on it grows
            found[output, j] = alphas[first - 1]
    return found


@pytest.fixture(scope="module")
def expected() -> list[np.ndarray[Any, Any]]:
    model = network()
    with torch.no_grad():
        hidden = torch.tanh(model[0](X))
    return [entries(X, model[0].weight), entries(hidden, model[2].weight)]


def test_a_single_weight_has_the_penalty_at_which_it_enters(expected: list[np.ndarray[Any, Any]]) -> None:
    model = network()
    space = autoprune.trace(model, X[:1], options={"density": {}}).search_space
    chosen = {"name": "net_trim", "settings": EXACT}
    found = channel_scores(model, space, chosen, calibration=Calibration([(X, None)]))
    for scores, oracle in zip(found, expected, strict=True):
        assert scores.reshape(oracle.shape) == pytest.approx(oracle, rel=0.03)


def test_a_channel_has_the_sum_over_the_weights_that_read_it(expected: list[np.ndarray[Any, Any]]) -> None:
    model = network()
    space = autoprune.trace(model, X[:1]).search_space
    chosen = {"name": "net_trim", "settings": EXACT}
    (found,) = channel_scores(model, space, chosen, calibration=Calibration([(X, None)]))
    assert found == pytest.approx(expected[1].sum(axis=0), rel=0.03)


def test_a_coarse_path_ranks_nearly_as_the_exact_one(expected: list[np.ndarray[Any, Any]]) -> None:
    model = network()
    space = autoprune.trace(model, X[:1], options={"density": {}}).search_space
    found = channel_scores(model, space, "net_trim", calibration=Calibration([(X, None)]))
    for scores, oracle in zip(found, expected, strict=True):
        ranks = [values.argsort().argsort() for values in (scores, oracle.flatten())]
        assert np.corrcoef(*ranks)[0, 1] > 0.97


@pytest.mark.parametrize("settings", [{"penalties": 1}, {"iterations": 0}, {"lowest": 1.0}])
def test_settings_out_of_range_are_told(settings: Any) -> None:
    with pytest.raises(ConfigError, match="penalties must be at least 2"):
        net_trim(None, np.random.default_rng(0), **settings)  # type: ignore[arg-type]
