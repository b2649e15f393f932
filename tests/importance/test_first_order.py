"""First-order criteria and `dcp` against loops over examples, finite differences and written-out training."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gated_networks import Residual, batches, calibration, gate_slopes, group_of, losses, residual
from torch import Tensor, nn

from autoprune.importance.members import channel_scores
from autoprune.space.groups import FloatArray, SearchSpace


@pytest.fixture(scope="module", params=["module", "graph"])
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, SearchSpace]:
    return residual(baked=request.param == "graph")


def scored(network: tuple[nn.Module, SearchSpace], criterion: str, name: str, **settings: object) -> FloatArray:
    model, space = network
    chosen = {"name": criterion, "settings": settings}
    return channel_scores(model, space, chosen, calibration=calibration())[group_of(space, name)]


def written_out(model: nn.Module) -> Residual:
    reference = Residual().eval().double()
    reference.load_state_dict(model.state_dict())
    return reference


@pytest.mark.parametrize("layer_l2", [True, False])
def test_taylor_activation_is_the_mean_size_of_value_times_gradient(
    network: tuple[nn.Module, SearchSpace], layer_l2: bool
) -> None:
    """Example by example, at the map that the one reader of `inner` gets."""
    reference = written_out(network[0])
    sizes = []
    for inputs, labels in batches():
        for x, y in zip(inputs.split(1), labels.split(1), strict=True):  # type: ignore[no-untyped-call]
            stem = F.relu(reference.bn(reference.stem(x)))
            z = F.relu(reference.inner(stem)).detach().requires_grad_(True)
            after = F.relu(stem + reference.back(z))
            pooled = F.adaptive_avg_pool2d(F.relu(reference.depthwise(after)), 2)
            (slope,) = torch.autograd.grad(F.cross_entropy(reference.head(pooled.flatten(1)), y), z)
            sizes.append((z * slope).mean(dim=(2, 3))[0].abs())
    expected = torch.stack(sizes).mean(dim=0).detach()
    if layer_l2:
        expected = expected / expected.square().sum().sqrt()
    assert scored(network, "taylor_activation", "inner", layer_l2=layer_l2) == pytest.approx(expected.numpy(), rel=1e-5)


@pytest.mark.parametrize("name", ["stem", "inner"])
def test_taylor_gate_is_the_squared_slope_of_the_gate(network: tuple[nn.Module, SearchSpace], name: str) -> None:
    per_batch, per_example = scored(network, "taylor_gate", name), scored(network, "taylor_gate", name, per="example")
    slopes = gate_slopes(network[0], name, len(per_batch))
    assert per_example == pytest.approx(slopes.square().mean(0).numpy(), rel=1e-4)
    of_batches = slopes.reshape(2, 4, -1).mean(dim=1)
    assert per_batch == pytest.approx(of_batches.square().mean(0).numpy(), rel=1e-4)
    assert scored(network, "fisher", name) * 2 == pytest.approx(per_example)


def test_snip_is_the_slope_of_one_factor_for_the_whole_channel(network: tuple[nn.Module, SearchSpace]) -> None:
    model, step = network[0], 1e-6
    for name, layers in {"stem": ("stem", "back", "depthwise"), "inner": ("inner",)}.items():
        found = scored(network, "snip", name)
        for channel, score in enumerate(found):
            ends = []
            for sign in (1, -1):
                moved = copy.deepcopy(model)
                with torch.no_grad():
                    for full, p in moved.named_parameters():
                        if full.partition(".")[0] in layers:
                            p[channel] *= 1 + sign * step
                ends.append(float(losses(moved).mean()))
            assert score == pytest.approx(abs(ends[0] - ends[1]) / (2 * step), rel=1e-4, abs=1e-8)


class _Joint:
    """L_M + weight x L_S of `inner` and its reader `back`, written out."""

    def __init__(self, model: nn.Module, weight: float) -> None:
        self.weight = weight
        self.whole, self.net = written_out(model), written_out(model)

    def back(self, net: Residual, x: Tensor) -> tuple[Tensor, Tensor]:
        stem = F.relu(net.bn(net.stem(x)))
        return stem, net.back(F.relu(net.inner(stem)))

    def slope(self) -> Tensor:
        total = torch.zeros_like(self.net.back.weight)
        for x, y in batches():
            stem, made = self.back(self.net, x)
            pooled = F.adaptive_avg_pool2d(F.relu(self.net.depthwise(F.relu(stem + made))), 2)
            target = self.back(self.whole, x)[1].detach()
            loss = (made - target).square().mean() / 2
            loss = loss + self.weight * F.cross_entropy(self.net.head(pooled.flatten(1)), y)
            total += torch.autograd.grad(loss, self.net.back.weight)[0] / 2
        return total

    def norms(self) -> Tensor:
        return self.slope().square().sum(dim=(0, 2, 3)).sqrt()


@pytest.mark.parametrize("weight", [0.0, 1.0, 10.0])
def test_dcp_of_one_round_is_the_norm_of_the_joint_gradient_with_nothing_read(
    network: tuple[nn.Module, SearchSpace], weight: float
) -> None:
    found = scored(network, "dcp", "inner", weight=weight, rounds=1)
    joint = _Joint(network[0], weight)
    with torch.no_grad():
        joint.net.back.weight.zero_()
    norms = joint.norms()
    assert found == pytest.approx((norms / norms.max()).detach().numpy(), rel=1e-6)


def test_dcp_takes_channels_up_round_by_round_and_trains_them(network: tuple[nn.Module, SearchSpace]) -> None:
    """After the other group, whose reading weights were trained: they are given back."""
    found = scored(network, "dcp", "inner", rounds=3, steps=2, lr=0.1)
    joint = _Joint(network[0], 1.0)
    weight = joint.net.back.weight
    kept: list[int] = []
    expected = np.zeros(5)
    with torch.no_grad():
        weight.zero_()
    for number in (1, 2, 3):
        norms = joint.norms().detach().numpy()
        left = [c for c in range(5) if c not in kept]
        for channel in left:
            expected[channel] = (3 - number + norms[channel] / norms[left].max()) / 3 if norms[channel] else 0.0
        for channel in sorted(left, key=lambda c: -norms[c])[:2]:
            kept.append(channel)
            with torch.no_grad():
                weight[:, channel] = joint.whole.back.weight[:, channel]
        for _ in range(2):
            slope = joint.slope()
            with torch.no_grad():
                weight[:, kept] -= 0.1 * slope[:, kept]
    assert found == pytest.approx(expected, rel=1e-6)
