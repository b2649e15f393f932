"""Second derivatives against explicit Hessians, Gauss-Newton matrices and finite differences."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gated_networks import Flat, batches, calibration, evidence, group_of, owned_names, residual
from torch import Tensor, nn

import autoprune
from autoprune.errors import ConfigError
from autoprune.importance.curvature import MOST_OUTPUTS
from autoprune.importance.derivatives import Matrix, gradient, products
from autoprune.importance.evidence import Calibration
from autoprune.importance.members import channel_scores
from autoprune.importance.network import NetworkEvidence
from autoprune.space.groups import SearchSpace


@pytest.fixture(scope="module", params=["relu", "tanh", "graph"])
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, SearchSpace]:
    return residual(smooth=request.param == "tanh", baked=request.param == "graph")


def explicit(flat: Flat, matrix: Matrix, temperature: float = 1.0) -> Tensor:
    """Averaged over the batches, which are of one size."""
    found = [flat.hessian(x, y, temperature) if matrix == "hessian" else flat.gauss_newton(x, y) for x, y in batches()]
    return torch.stack(found).mean(dim=0)


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_products_are_those_with_the_explicit_matrix(network: tuple[nn.Module, SearchSpace], matrix: Matrix) -> None:
    model, space = network
    found = evidence(model, space)
    names = list(found.weights)
    assert sorted(names) == sorted(owned_names(model))
    flat = Flat(model, names)
    vector = torch.randn(sum(flat.sizes), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    parts = dict(zip(names, vector.split(flat.sizes), strict=True))
    for batch, (x, y) in zip(found.examples(None), batches(), strict=True):
        product = products(found, batch, matrix)({n: parts[n].reshape(flat.at[n].shape) for n in names})
        whole = flat.hessian(x, y) if matrix == "hessian" else flat.gauss_newton(x, y)
        expected = whole @ vector
        assert expected.norm() > 1e-3
        assert torch.allclose(torch.cat([product[n].flatten() for n in names]), expected, atol=1e-10)


def test_gradients_are_those_of_finite_differences(network: tuple[nn.Module, SearchSpace]) -> None:
    model, space = network
    found = evidence(model, space)
    flat, step = Flat(model, list(found.weights)), 1e-6
    (x, y), batch = batches()[0], found.examples(None)[0]
    slopes = torch.cat([t.flatten() for t in gradient(found, batch).values()])
    loss, at = flat.loss(x, y), flat.vector
    for number in range(0, len(at), 7):
        moved = torch.zeros_like(at)
        moved[number] = step
        assert float(slopes[number]) == pytest.approx(float(loss(at + moved) - loss(at - moved)) / (2 * step), abs=1e-7)


def channels(space: SearchSpace) -> list[tuple[str, int]]:
    return [(name, c) for name in ("stem", "inner") for c in range(space.groups[group_of(space, name)].width)]


@pytest.mark.parametrize("criterion", ["obd", "hap"])
def test_gauss_newton_scores_are_within_the_error_that_is_promised(
    network: tuple[nn.Module, SearchSpace], criterion: str
) -> None:
    """With 800 probes the standard error is at most 5 % of each score."""
    model, space = network
    settings = {"matrix": "gauss_newton", "probes": 800}
    scores = channel_scores(model, space, {"name": criterion, "settings": settings}, calibration=calibration())
    flat = Flat(model, owned_names(model))
    diagonal, at = explicit(flat, "gauss_newton").diagonal(), flat.vector
    for name, channel in channels(space):
        owned = flat.channel(name, channel)
        h, w = diagonal[owned], at[owned]
        expected = (h * w**2).sum() / 2 if criterion == "obd" else h.sum() / (2 * len(w)) * (w**2).sum()
        assert scores[group_of(space, name)][channel] == pytest.approx(float(expected), rel=4 * (2 / 1600) ** 0.5)


@pytest.mark.parametrize("criterion", ["obd", "hap"])
def test_hessian_scores_are_within_the_error_of_hutchinson(
    network: tuple[nn.Module, SearchSpace], criterion: str
) -> None:
    """For signs v the variance of sum_k in block v_k (Av)_k is twice the squares beside the diagonal of its form."""
    model, space = network
    probes = 500
    settings = {"matrix": "hessian", "probes": probes}
    scores = channel_scores(model, space, {"name": criterion, "settings": settings}, calibration=calibration())
    flat = Flat(model, owned_names(model))
    at = flat.vector
    of_batches = [flat.hessian(x, y) for x, y in batches()]
    scaled = [h * at * at[:, None] if criterion == "obd" else h for h in of_batches]
    for name, channel in channels(space):
        owned = flat.channel(name, channel)
        factor = 0.5 if criterion == "obd" else float((at[owned] ** 2).sum() / (2 * owned.sum()))
        expected = factor * float(torch.stack([a.diagonal()[owned].sum() for a in scaled]).mean())
        variance = 0.0
        for a in scaled:
            form = (a * owned[:, None] + a * owned) / 2
            variance += float(2 * (form.square().sum() - form.diagonal().square().sum())) / len(scaled) ** 2
        error = factor * (variance / probes) ** 0.5
        assert abs(scores[group_of(space, name)][channel] - max(expected, 0)) < 4.5 * error + 1e-12


def test_of_piecewise_linear_networks_both_diagonals_are_the_same() -> None:
    model, _ = residual()
    flat = Flat(model, owned_names(model))
    one, other = (explicit(flat, matrix).diagonal() for matrix in ("hessian", "gauss_newton"))
    assert torch.allclose(one, other, atol=1e-12)
    model, _ = residual(smooth=True)
    flat = Flat(model, owned_names(model))
    one, other = (explicit(flat, matrix).diagonal() for matrix in ("hessian", "gauss_newton"))
    assert not torch.allclose(one, other, rtol=1e-2)


@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_grasp_is_weights_times_hessian_times_gradient(
    network: tuple[nn.Module, SearchSpace], temperature: float
) -> None:
    model, space = network
    settings = {"temperature": temperature}
    scores = channel_scores(model, space, {"name": "grasp", "settings": settings}, calibration=calibration())
    flat = Flat(model, owned_names(model))
    at = flat.vector.requires_grad_(True)
    mean = sum(flat.loss(x, y, temperature)(at) for x, y in batches()) / 2
    assert isinstance(mean, Tensor)
    (slope,) = torch.autograd.grad(mean, at)
    kept = at.detach() * (explicit(flat, "hessian", temperature) @ slope)
    expected = [float(kept[flat.channel(name, channel)].sum()) for name, channel in channels(space)]
    found = [scores[group_of(space, name)][channel] for name, channel in channels(space)]
    assert np.std(expected) > 0
    assert np.array(found) == pytest.approx(np.array(expected) - min(expected), rel=1e-6, abs=1e-12 * max(found))


def test_removing_what_grasp_scores_low_keeps_more_of_the_gradient(network: tuple[nn.Module, SearchSpace]) -> None:
    """The sign: shrinking a channel's weights a little lowers the gradient's squared norm by twice its score."""
    model, space = network
    settings = {"temperature": 1.0}
    scores = channel_scores(model, space, {"name": "grasp", "settings": settings}, calibration=calibration())
    flat, step = Flat(model, owned_names(model)), 1e-5

    def flow(at: Tensor) -> float:
        at = at.clone().requires_grad_(True)
        mean = sum(flat.loss(x, y)(at) for x, y in batches()) / 2
        assert isinstance(mean, Tensor)
        return float(torch.autograd.grad(mean, at)[0].square().sum())

    changes = [
        (
            flow(flat.vector * (1 - step * flat.channel(n, c).double()))
            - flow(flat.vector * (1 + step * flat.channel(n, c).double()))
        )
        / (2 * step)
        for n, c in channels(space)
    ]
    found = np.array([scores[group_of(space, n)][c] for n, c in channels(space)])
    lost = -np.array(changes) / 2
    assert found == pytest.approx(lost - lost.min(), rel=1e-4, abs=1e-7)


def test_movement_is_the_sum_over_steps_of_gradient_descent(network: tuple[nn.Module, SearchSpace]) -> None:
    model, space = network
    settings = {"steps": 5, "lr": 0.05}
    scores = channel_scores(model, space, {"name": "movement", "settings": settings}, calibration=calibration())
    trained = copy.deepcopy(model).requires_grad_(True)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.05)
    total = {name: torch.zeros_like(p) for name, p in trained.named_parameters()}
    for step in range(5):
        x, y = batches()[step % 2]
        optimizer.zero_grad()
        F.cross_entropy(trained(x), y).backward()  # type: ignore[no-untyped-call]
        for name, p in trained.named_parameters():
            assert p.grad is not None
            total[name] -= 0.05 * (p.grad * p).detach()
        optimizer.step()
    flat = Flat(model, owned_names(model))
    moved = torch.cat([total[name].flatten() for name in flat.names])
    expected = np.array([float(moved[flat.channel(n, c)].sum()) for n, c in channels(space)])
    found = np.array([scores[group_of(space, n)][c] for n, c in channels(space)])
    assert found == pytest.approx(expected - expected.min(), rel=1e-8, abs=1e-12)


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return 2 * x * slope


class _Squares(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(5, 4), nn.Linear(4, 3))
        self.once = False

    def forward(self, x: Tensor) -> Tensor:
        x = self[0](x)
        return self[1](_Once.apply(x) if self.once else x * x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("criterion", ["obd", "hap", "grasp"])
def test_an_operator_without_second_derivatives_is_one_clear_error(criterion: str) -> None:
    torch.manual_seed(0)
    model = _Squares().eval()
    space = autoprune.trace(model, torch.randn(2, 5)).search_space
    model.once = True
    given = Calibration([(torch.randn(6, 5), torch.randint(3, (6,)))], F.cross_entropy)
    settings = {} if criterion == "grasp" else {"matrix": "hessian"}
    with pytest.raises(ConfigError, match=r"second derivatives .* none: .*once_differentiable; choose .*taylor_gate"):
        channel_scores(model, space, {"name": criterion, "settings": settings}, calibration=given)
    settings = {"probes": 3, "matrix": "gauss_newton"}
    if criterion != "grasp":  # which needs first derivatives of the network only
        channel_scores(model, space, {"name": criterion, "settings": settings}, calibration=given)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv, self.proj = nn.Linear(4, 8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.up, self.down, self.head = nn.Linear(8, 6), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = self.qkv(x).reshape(len(x), -1, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))
        return self.head((x + self.down(F.gelu(self.up(x)))).mean(1))  # type: ignore[no-any-return]


def test_fused_attention_is_differentiated_twice() -> None:
    """Against differences of gradients, which need no second derivative of any operator."""
    torch.manual_seed(0)
    model = _Attention().eval()
    space = autoprune.trace(model, torch.randn(2, 5, 4)).search_space
    model.double()
    x, y = torch.randn(4, 5, 4, dtype=torch.float64), torch.randint(3, (4,))
    found = NetworkEvidence(model, space, Calibration([(x, y)], F.cross_entropy), what="it")
    weights = {name: w.detach().clone() for name, w in found.weights.items()}
    batch, step = found.examples(None)[0], 1e-5
    vector = {name: torch.randn_like(w) for name, w in weights.items()}
    product = products(found, batch)(vector)
    slopes = []
    for sign in (1, -1):
        with torch.no_grad():
            for name, w in found.weights.items():
                w.copy_(weights[name] + sign * step * vector[name])
        slopes.append(gradient(found, batch))
    for name, turned in product.items():
        assert torch.allclose(turned, (slopes[0][name] - slopes[1][name]) / (2 * step), atol=1e-6)


def test_many_outputs_fall_back_to_products_with_the_same_matrix() -> None:
    """A squared error over more outputs than a root is taken of: its matrix is twice J^T J over their number."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, MOST_OUTPUTS + 1)).double()
    space = autoprune.trace(model.float(), torch.randn(2, 4)).search_space
    model.double()
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, MOST_OUTPUTS + 1, dtype=torch.float64)
    settings = {"matrix": "gauss_newton", "probes": 3000}
    given = Calibration([(x, y)], F.mse_loss)
    scores = channel_scores(model, space, {"name": "obd", "settings": settings}, calibration=given)[0]
    flat = Flat(model, ["0.weight", "0.bias"])
    jacobian = torch.autograd.functional.jacobian(lambda v: flat.outputs(v, x).flatten(), flat.vector)  # type: ignore[no-untyped-call]
    diagonal = 2 * jacobian.square().sum(dim=0) / y.numel() * flat.vector.square() / 2
    expected = diagonal[:12].reshape(3, 4).sum(dim=1) + diagonal[12:]
    assert scores == pytest.approx(expected.numpy(), rel=0.1)


@pytest.mark.parametrize(
    ("criterion", "settings", "message"),
    [
        ("obd", {"probes": 0}, "probes must be at least 1, got 0"),
        ("hap", {"examples": 0}, "criterion 'hap.*examples must be at least 1, or null for all, got 0"),
        ("hap", {"matrix": "hesian"}, "matrix must be one of hessian, gauss_newton, got .*Did you mean 'hessian'"),
        ("grasp", {"temperature": 0.0}, "temperature must be above 0, got 0"),
        ("movement", {"steps": 0}, "steps must be at least 1 and lr above 0, got 0 and 0.01"),
        ("movement", {"lr": -1.0}, "lr above 0, got 20 and -1"),
    ],
)
def test_settings_out_of_range_are_named(criterion: str, settings: dict[str, Any], message: str) -> None:
    model, space = residual()
    with pytest.raises(ConfigError, match=message):
        channel_scores(model, space, {"name": criterion, "settings": settings}, calibration=calibration())
