"""Gates and norms over the tensors of groups, against cut networks and sums by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.cost.flops import flops
from autoprune.space.copying import copy_network
from autoprune.space.cutting.slicing import slice_model
from autoprune.space.groups import SearchSpace
from autoprune.space.tracing.trace import trace
from autoprune.sparsity.channels import GroupChannels, weights_of
from autoprune.sparsity.gates import GatedNetwork, PlainGates
from autoprune.sparsity.proximal import accelerated_step, soft_threshold
from autoprune.sparsity.soft_costs import SoftFlops
from autoprune.testing.evaluators import TinyNet
from autoprune.zoo.resnet import resnet20

SIDE = {"tiny": 6, "residual": 8}


def made(name: str) -> tuple[nn.Module, SearchSpace, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = TinyNet() if name == "tiny" else resnet20(in_channels=1, classes=4, width=0.25, shortcut="projection")
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
        images = torch.randn(5, 1, SIDE[name], SIDE[name])
    return network.eval(), trace(network, images[:1]).space, images


@pytest.mark.parametrize("name", ["tiny", "residual"])
def test_closed_gates_are_the_cut_network_and_settled_they_are_its_weights(name: str) -> None:
    network, space, images = made(name)
    channels = GroupChannels(network, space)
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(channels.number, generator=generator)
    widths = tuple(max(1, group.width // 2) for group in space.groups)
    kept = channels.kept(values, widths)
    ranking = []
    for index, parts in channels.of_groups:
        order = torch.cat([(~kept[part]).to(torch.long) for part in parts]).numpy()
        ranking.append(np.argsort(np.argsort(order, kind="stable"), kind="stable"))
        assert int(kept[parts[0]].sum()) == widths[index]
    gated = GatedNetwork(copy_network(network), PlainGates(channels)).eval()
    gated.gates.values.data = kept.float()  # type: ignore[union-attr]
    with torch.no_grad():
        expected = slice_model(network, space, widths, tuple(ranking)).eval()(images)
        torch.testing.assert_close(gated(images), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(gated.settle()(images), expected, rtol=1e-4, atol=1e-4)
        assert type(gated.network) is type(network)


def test_open_gates_change_nothing_and_take_gradients() -> None:
    network, space, images = made("residual")
    gated = GatedNetwork(copy_network(network), PlainGates(GroupChannels(network, space))).eval()
    outputs = gated(images)
    torch.testing.assert_close(outputs, network(images))
    outputs.square().sum().backward()
    values = gated.gates.values
    step = torch.zeros(len(values))  # type: ignore[arg-type]
    step[3] = 1e-3
    with torch.no_grad():
        ends = []
        for sign in (1, -1):
            values.copy_(1 + sign * step)  # type: ignore[operator]
            ends.append(gated(images).square().sum().double())
    assert values.grad[3] == pytest.approx(float((ends[0] - ends[1]) / 2e-3), rel=2e-2)  # type: ignore[index]


def test_norms_are_over_all_that_writes_and_reads_a_channel() -> None:
    network, space, _ = made("tiny")
    channels = GroupChannels(network, space)
    weights = {name: tensor.detach().numpy() for name, tensor in network.named_parameters()}
    first, second = weights["features.0.weight"], weights["features.3.weight"]
    expected = np.concatenate(
        [
            np.sqrt((first**2).sum((1, 2, 3)) + (second**2).sum((0, 2, 3))),
            np.sqrt((second**2).sum((1, 2, 3)) + (weights["head.weight"] ** 2).sum(0)),
        ]
    )
    found = channels.norms(weights_of(network), [*channels.written, *channels.read])
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5)
    assert channels.entries(weights_of(network), channels.read).tolist() == [12 * 9] * 8 + [4] * 12
    scales = channels.sums(weights_of(network), channels.scales)
    expected = np.concatenate([weights["features.1.weight"], weights["features.4.weight"]])
    np.testing.assert_allclose(scales.detach().numpy(), expected, rtol=1e-6)


def test_flops_of_tensors_are_those_of_whole_widths() -> None:
    network, space, _ = made("residual")
    soft, rng = SoftFlops(space, network), np.random.default_rng(0)
    for _ in range(5):
        row = [int(rng.integers(1, group.width + 1)) for group in space.groups]
        assert float(soft.share(row)) * soft.full == pytest.approx(float(flops(space)(np.array([row]))[0]), rel=1e-6)


def test_accelerated_proximal_steps_find_the_lasso() -> None:
    from sklearn.linear_model import Lasso

    rng = np.random.default_rng(1)
    matrix, truth = rng.normal(size=(60, 8)), np.array([2.0, 0, 0, -1.5, 0, 0, 0.5, 0])
    target = matrix @ truth + 0.1 * rng.normal(size=60)
    weight = 0.2
    solved = Lasso(alpha=weight, fit_intercept=False, tol=1e-12).fit(matrix, target).coef_
    x = momentum = torch.zeros(8, dtype=torch.float64)
    A, b = torch.from_numpy(matrix), torch.from_numpy(target)
    for _ in range(500):
        gradient = A.T @ (A @ x - b) / 60
        z, momentum, x = accelerated_step(x, gradient, momentum, lr=0.1, weight=weight, mu=0.5)
    np.testing.assert_allclose(z.numpy(), solved, atol=1e-7)
    assert bool(((z == 0) == torch.from_numpy(solved == 0)).all())


@pytest.mark.parametrize("value", [-2.0, -0.3, 0.0, 0.4, 3.0])
def test_soft_thresholding_minimises(value: float) -> None:
    grid = np.linspace(-4, 4, 80001)
    best = grid[np.argmin(0.5 * (grid - value) ** 2 + 0.5 * np.abs(grid))]
    assert float(soft_threshold(torch.tensor(value), 0.5)) == pytest.approx(best, abs=1e-4)
