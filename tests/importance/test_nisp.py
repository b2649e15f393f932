"""NISP against products of matrices by hand, and infinite feature selection against sums over paths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.importance.evidence import Calibration
from autoprune.importance.inf_fs import infinite_feature_selection
from autoprune.importance.members import channel_scores
from autoprune.space.groups import FloatArray
from autoprune.space.tracing.trace import trace


def nisp_scores(model: nn.Module, batch: Tensor, **settings: object) -> dict[str, FloatArray]:
    space = trace(model, batch[:2]).space
    chosen = {"name": "nisp", "settings": settings}
    scores = channel_scores(model, space, chosen, calibration=Calibration([(batch, None)]))
    return {group.name: of_group for group, of_group in zip(space.groups, scores, strict=True)}


def test_a_perceptron_is_a_product_of_absolute_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 6), nn.Sigmoid(), nn.Linear(6, 5), nn.Linear(5, 3))
    found = nisp_scores(model, torch.randn(9, 4), responses="uniform")
    second, third = (model[i].weight.detach().abs().double() for i in (2, 4))
    last = torch.ones(5).double()
    assert found["4"] == pytest.approx(last.numpy())
    assert found["2"] == pytest.approx((third.T @ last).numpy())
    assert found["0"] == pytest.approx((second.T @ third.T @ last).numpy())


def test_the_last_responses_count_as_infinite_feature_selection_says() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3))
    batch = torch.randn(30, 4)
    with torch.no_grad():
        responses = model[:4](batch).double().numpy()
    last = infinite_feature_selection(responses, alpha=0.3)
    found = nisp_scores(model, batch, alpha=0.3)
    assert found["2"] == pytest.approx(last, rel=1e-5)
    assert found["0"] == pytest.approx(model[2].weight.detach().abs().double().numpy().T @ last, rel=1e-5)


def test_convolutions_norms_sums_and_pooling_are_jacobians_of_their_sizes() -> None:
    """A residual block without nonlinear functions is linear: its Jacobian, of positive weights, by autograd's vmap."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 6, 3, stride=2, padding=1)
            self.norm, self.other = nn.BatchNorm2d(6), nn.Conv2d(5, 6, 1, stride=2)
            self.depthwise, self.head = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Linear(6, 3)

        def after(self, x: Tensor) -> Tensor:
            x = F.relu(self.norm(self.one(x)) + self.other(x))
            return F.relu6(self.depthwise(x)).mean(dim=(2, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.after(torch.tanh(self.stem(x))))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model = Block().eval()
    with torch.no_grad():
        model.norm.running_var.uniform_(0.5, 2)
        model.norm.weight.normal_()
    found = nisp_scores(model, torch.randn(5, 2, 6, 6), responses="uniform")
    sizes = {name: p.detach().abs().double() for name, p in model.named_parameters()}
    gain = (sizes["norm.weight"] / (model.norm.running_var + model.norm.eps).double().sqrt()).reshape(1, -1, 1, 1)

    def linear(x: Tensor) -> Tensor:
        x = F.conv2d(x, sizes["one.weight"], stride=2, padding=1) * gain + F.conv2d(x, sizes["other.weight"], stride=2)
        return F.conv2d(x, sizes["depthwise.weight"], padding=1, groups=6).mean(dim=(2, 3))

    jacobian = torch.autograd.functional.jacobian(linear, torch.rand(1, 5, 6, 6).double())
    assert isinstance(jacobian, Tensor)
    assert found["stem"] == pytest.approx(jacobian.sum(dim=(0, 1, 2, 4, 5)).numpy(), rel=1e-6)


def test_every_head_counts() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one, self.other = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(5, 6)
            self.first, self.second = nn.Linear(4, 2), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = torch.relu(self.stem(x))
            return self.first(torch.relu(self.one(x))), torch.log_softmax(self.second(torch.relu(self.other(x))), 1)

    torch.manual_seed(0)
    model = Heads()
    found = nisp_scores(model, torch.randn(9, 3), responses="uniform")
    expected = model.one.weight.abs().sum(0) + model.other.weight.abs().sum(0)
    assert found["stem"] == pytest.approx(expected.detach().numpy(), rel=1e-6)


def test_transformers_are_scored() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
    model = nn.Sequential(nn.Linear(3, 8), layer, nn.Flatten(), nn.Linear(40, 2)).eval()
    found = nisp_scores(model, torch.randn(9, 5, 3))
    assert found
    assert all(np.isfinite(scores).all() and scores.max() > 0 for scores in found.values())


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_infinite_feature_selection_sums_over_paths_of_all_lengths(alpha: float) -> None:
    values = np.random.default_rng(0).normal(size=(50, 6)) ** 3
    scaled = (values - values.min(0)) / (values.max(0) - values.min(0))
    deviations = scaled.std(axis=0)
    links = alpha * np.maximum.outer(deviations, deviations) + (1 - alpha) * (1 - np.abs(spearmanr(values).statistic))
    step = 0.9 / np.abs(np.linalg.eigvals(links)).max() * links
    total, power = np.zeros_like(links), np.eye(6)
    for _ in range(400):
        power = power @ step
        total += power
    assert infinite_feature_selection(values, alpha=alpha) == pytest.approx(total.sum(axis=1), rel=1e-6)


def test_constant_features_are_no_failure() -> None:
    values = np.random.default_rng(0).normal(size=(20, 3))
    values[:, 1] = 2.0
    assert np.isfinite(infinite_feature_selection(values)).all()
    assert infinite_feature_selection(np.ones((20, 1))).tolist() == [1.0]


def test_settings_out_of_range_are_named() -> None:
    model = nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 3))
    with pytest.raises(ConfigError, match="responses must be one of inf_fs, uniform, got 'inffs'"):
        nisp_scores(model, torch.randn(9, 4), responses="inffs")
    with pytest.raises(ConfigError, match="alpha must be from 0 to 1, got 2"):
        nisp_scores(model, torch.randn(9, 4), alpha=2)
