"""Scores of single weights against computations that share no code with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import autoprune
from autoprune.errors import ConfigError, EvaluationError
from autoprune.importance.evidence import Calibration
from autoprune.importance.filters import group_filters
from autoprune.importance.members import channel_scores, unit_scores
from autoprune.space.groups import FloatArray, SearchSpace
from autoprune.testing.generators import global_generators

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(24, 6, generator=GENERATOR), torch.randint(3, (24,), generator=GENERATOR)
BATCHES = [(X[:12], Y[:12]), (X[12:], Y[12:])]
SMOOTH = (
    "magnitude",
    "l2",
    "lamp",
    "wanda",
    "obs",
    "net_trim",
    "snip",
    "taylor_weight",
    "grasp",
    "movement",
    "obd",
    "random",
)


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double().eval()


def space_of(model: nn.Module, example: Tensor | None = None, **density: Any) -> SearchSpace:
    given = X[:1].double() if example is None else example
    return autoprune.trace(model, given, options={"density": density}).search_space


def calibration(batches: Any = None) -> Calibration:
    return Calibration([(x.double(), y) for x, y in batches or BATCHES], F.cross_entropy)


def scores(criterion: Any, model: nn.Module | None = None, **density: Any) -> list[FloatArray]:
    model = model or network()
    return channel_scores(model, space_of(model, **density), criterion, calibration=calibration())


def weights(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.ndim > 1]


def slopes(model: nn.Module, x: Tensor, y: Tensor, temperature: float = 1.0) -> list[Tensor]:
    loss = F.cross_entropy(model(x.double()) / temperature, y)
    return list(torch.autograd.grad(loss, weights(model), create_graph=True))


@pytest.mark.parametrize("criterion", SMOOTH)
@pytest.mark.parametrize("pattern", ["unstructured", "1x1"])
def test_every_weight_has_a_score_and_the_model_is_only_read(criterion: str, pattern: str) -> None:
    model, generators = network(), global_generators()
    before = [w.clone() for w in model.parameters()]
    found = scores(criterion, model, pattern=pattern)
    assert [len(s) for s in found] == [30, 15]
    assert all((s >= 0).all() and np.isfinite(s).all() for s in found)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert not any(p.grad is not None for p in model.parameters())
    assert global_generators() == generators


def test_magnitudes_are_those_of_the_weights_and_of_blocks_their_sums() -> None:
    model = network()
    for found, weight in zip(scores("magnitude", model), weights(model), strict=True):
        assert np.allclose(found, weight.detach().abs().flatten())
    (found, _) = scores("l1", model, pattern="1x2", layers=["0"]), None
    assert np.allclose(found[0], model[0].weight.detach().abs().reshape(5, 3, 2).sum(2).flatten())


def test_lamp_is_the_published_formula() -> None:
    """(arXiv 2010.07611, 4): W[u]² / Σ_{v >= u} W[v]², indices sorted by ascending magnitude."""
    model = network()
    for found, weight in zip(scores("lamp", model), weights(model), strict=True):
        flat = weight.detach().flatten().tolist()
        order = sorted(range(len(flat)), key=lambda i: abs(flat[i]))
        for place, u in enumerate(order):
            assert found[u] == pytest.approx(flat[u] ** 2 / sum(flat[v] ** 2 for v in order[place:]), rel=1e-9)


def test_wanda_is_weight_times_norm_of_its_input_by_hand() -> None:
    model = network()
    first, second = scores("wanda", model)
    with torch.no_grad():
        hidden = torch.tanh(model[0](X.double()))
    for found, weight, inputs in ((first, model[0].weight, X.double()), (second, model[2].weight, hidden)):
        norms = np.linalg.norm(inputs.numpy(), axis=0) / np.sqrt(
            24
        )  # over examples; the root of their number is common
        assert np.allclose(found.reshape(weight.shape), np.abs(weight.detach().numpy()) * norms)


def test_wanda_of_a_convolution_sees_each_tap() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 2)).double()
    images = torch.randn(5, 2, 3, 3, generator=GENERATOR).double()
    space = space_of(model, images[:1])
    (found,) = channel_scores(model, space, "wanda", calibration=Calibration([(images, None)]))
    patches = F.unfold(images, 2).transpose(1, 2).reshape(-1, 8)  # (positions, channels x taps)
    expected = model[0].weight.detach().abs().flatten(1) * patches.square().mean(0).sqrt()
    order = expected.reshape(3, 2, 4).transpose(1, 2).flatten()  # taps first, then inputs
    assert np.allclose(found, order)


def test_snip_and_taylor_are_products_with_the_gradient() -> None:
    model = network()
    by_batch = [
        [(g * w).detach() for g, w in zip(slopes(model, x, y), weights(model), strict=True)] for x, y in BATCHES
    ]
    for layer, (snip, taylor) in enumerate(zip(scores("snip", model), scores("taylor_weight", model), strict=True)):
        one, other = by_batch[0][layer], by_batch[1][layer]
        assert np.allclose(snip, ((one + other) / 2).abs().flatten())
        assert np.allclose(taylor, ((one.square() + other.square()) / 2).flatten())


@pytest.mark.parametrize("constant", [False, True])
def test_obs_is_the_error_of_the_best_fit_without_the_weight(constant: bool) -> None:
    """w² / [H⁻¹]_jj is what least squares on the other inputs leaves; numpy.linalg.lstsq says the same."""
    model = network()
    settings = {"name": "obs", "settings": {"constant": constant, "ridge": 1e-12}}
    found = scores(settings, model)[0].reshape(5, 6)
    inputs = X.double().numpy()
    for output, weight in enumerate(model[0].weight.detach().numpy()):
        for j in range(6):
            others = np.delete(inputs, j, axis=1)
            others = np.hstack([others, np.ones((24, 1))]) if constant else others
            target = inputs @ weight
            fit = others @ np.linalg.lstsq(others, target, rcond=None)[0]
            assert found[output, j] == pytest.approx(np.mean((target - fit) ** 2), rel=1e-6)


def test_grasp_is_minus_weight_times_hessian_times_gradient() -> None:
    model = network()
    vector = torch.cat([w.detach().flatten() for w in weights(model)])
    shapes = [w.shape for w in weights(model)]
    x, y = X.double(), Y

    def loss(flat: Tensor) -> Tensor:
        first, second = (p.reshape(s) for p, s in zip(flat.split([30, 15]), shapes, strict=True))
        outputs = F.linear(torch.tanh(F.linear(x, first, model[0].bias)), second, model[2].bias)
        return F.cross_entropy(outputs / 200.0, y)

    slope = torch.autograd.functional.jacobian(loss, vector)
    hessian = torch.autograd.functional.hessian(loss, vector)
    kept = (vector * (hessian @ slope)).detach().numpy()  # type: ignore[operator]
    found = np.concatenate(scores("grasp", model))
    assert np.allclose(found, kept - kept.min(), rtol=1e-6, atol=1e-12)


def test_movement_is_what_gradient_descent_sums_up() -> None:
    model = network()
    found = np.concatenate(scores({"name": "movement", "settings": {"steps": 3, "lr": 0.1}}, model))
    copied, moved = network(), torch.zeros(45, dtype=torch.float64)
    for step in range(3):
        x, y = BATCHES[step % 2]
        gradients = torch.autograd.grad(F.cross_entropy(copied(x.double()), y), list(copied.parameters()))
        named = dict(zip(copied.parameters(), gradients, strict=True))
        moved -= 0.1 * torch.cat([(w.detach() * named[w]).flatten() for w in weights(copied)])
        with torch.no_grad():
            for parameter, gradient in named.items():
                parameter -= 0.1 * gradient
    assert np.allclose(found, (moved - moved.min()).numpy())


def test_obd_is_half_the_diagonal_of_gauss_newton_times_the_square() -> None:
    model = network()
    found = np.concatenate(scores({"name": "obd", "settings": {"probes": 4000}}, model))
    total = torch.zeros(45, dtype=torch.float64)
    for x in X.double():
        outputs = model(x)
        jacobian = torch.stack(
            [
                torch.cat([g.flatten() for g in torch.autograd.grad(o, weights(model), retain_graph=True)])
                for o in outputs
            ]
        )
        p = outputs.softmax(0).detach()
        total += torch.einsum("ok,op,pk->k", jacobian, torch.diag(p) - torch.outer(p, p), jacobian) / 24
    flat = torch.cat([w.detach().flatten() for w in weights(model)])
    expected = (total * flat.square() / 2).numpy()
    assert np.allclose(found, expected, rtol=0.2, atol=1e-3 * expected.max())


def test_steps_are_worth_the_sum_of_their_weights() -> None:
    model = network()
    space = space_of(model, steps=4)
    found = channel_scores(model, space, "magnitude")
    first = np.sort(found[0])[::-1]
    per_step = unit_scores(space, found)[0]  # 30 weights: 9, 7, 7, 7
    assert np.allclose(per_step, [first[:9].sum(), first[9:16].sum(), first[16:23].sum(), first[23:].sum()])


@pytest.mark.parametrize(
    "criterion", ["apoz", "taylor_gate", "fisher", "bn_scale", "fpgm", "hap", "thinet", "ablation"]
)
def test_criteria_of_channels_are_refused(criterion: str) -> None:
    with pytest.raises(ConfigError, match="scores channels, and a density leaves single weights out: choose magnitude"):
        scores(criterion)


def test_what_is_missing_is_said() -> None:
    model = network()
    space = space_of(model)
    for criterion in ("wanda", "snip", "grasp"):
        with pytest.raises(ConfigError, match="needs"):
            channel_scores(model, space, criterion)
    broken = Calibration([(torch.full((2, 6), torch.nan).double(), Y[:2])], F.cross_entropy)
    for criterion in ("wanda", "snip", "obs"):
        with pytest.raises(EvaluationError, match="finite"):
            channel_scores(model, space, criterion, calibration=broken)
    with pytest.raises(ConfigError, match="compares the filters of channels"):
        group_filters(model, space)
