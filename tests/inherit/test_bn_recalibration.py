import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from autoprune.inherit.bn_recalibration import recalibrate_batch_norm
from autoprune.space.graph_form import graph_network
from autoprune.space.trace import trace

CPU = torch.device("cpu")


@pytest.fixture
def model() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(4, 2, 3),
        nn.BatchNorm2d(2, momentum=0.3),
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_()
        for norm in (net[1], net[5]):
            norm.running_mean.fill_(9.0)
    net[3].eval()
    return net


@pytest.fixture
def inputs() -> list[Tensor]:
    return [torch.randn(n, 3, 8, 8) * n for n in (2, 5, 7)]


def by_hand(net: nn.Module, inputs: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Means over batches of mean and unbiased variance, in float64 and without any batch norm module."""
    net = copy.deepcopy(net).double()
    found: list[list[tuple[Tensor, Tensor]]] = [[], []]
    for x in inputs:
        x = x.double()
        for position, (conv, norm) in enumerate(((net[0], net[1]), (net[4], net[5]))):
            x = conv(x)
            mean, centred = x.mean((0, 2, 3)), x - x.mean((0, 2, 3), keepdim=True)
            variance = centred.square().mean((0, 2, 3))
            values = x.numel() / x.shape[1]
            found[position].append((mean, variance * values / (values - 1)))
            x = centred / (variance + norm.eps).sqrt()[:, None, None]
            x = (x * norm.weight[:, None, None] + norm.bias[:, None, None]).relu()
    return [tuple(torch.stack(part).mean(0) for part in zip(*batches, strict=True)) for batches in found]


def test_statistics_equal_those_computed_by_hand(model: nn.Module, inputs: list[Tensor]):
    expected = by_hand(model, inputs)
    recalibrate_batch_norm(model, inputs, device=CPU)
    for norm, (mean, variance) in zip((model[1], model[5]), expected, strict=True):
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-4, atol=1e-4)


def test_a_network_that_runs_as_its_graph_gets_the_same_statistics(model: nn.Module, inputs: list[Tensor]):
    traced = trace(model, inputs[0])
    graph = graph_network(model, traced.program, replace(traced.space, form="graph"), traced.example)
    recalibrate_batch_norm(graph, inputs, device=CPU)
    recalibrate_batch_norm(model, inputs, device=CPU)
    assert graph.training
    for name, value in model.state_dict().items():
        torch.testing.assert_close(graph.state_dict()[name], value)


def test_weights_flags_momenta_and_random_state_stay(model: nn.Module, inputs: list[Tensor]):
    weights = [p.clone() for p in model.parameters()]
    flags = [module.training for module in model.modules()]
    before = torch.get_rng_state()
    recalibrate_batch_norm(model, inputs, device=CPU)
    assert all(map(torch.equal, model.parameters(), weights))
    assert [module.training for module in model.modules()] == flags
    assert (model[1].momentum, model[5].momentum) == (0.1, 0.3)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in model.parameters())


def test_a_second_time_changes_nothing(model: nn.Module, inputs: list[Tensor]):
    recalibrate_batch_norm(model, inputs, device=CPU)
    first = copy.deepcopy(model.state_dict())
    recalibrate_batch_norm(model, inputs, device=CPU)
    assert all(torch.equal(first[name], value) for name, value in model.state_dict().items())


def test_flags_and_momenta_come_back_after_an_error(model: nn.Module):
    with pytest.raises(RuntimeError):
        recalibrate_batch_norm(model, [torch.zeros(2, 99, 8, 8)], device=CPU)
    assert model.training
    assert not model[3].training
    assert model[5].momentum == 0.3


def test_nothing_happens_without_inputs_or_without_norms(model: nn.Module, inputs: list[Tensor]):
    before = copy.deepcopy(model.state_dict())
    recalibrate_batch_norm(model, [], device=CPU)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    untracked = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Conv2d(3, 3, 1))
    recalibrate_batch_norm(untracked, inputs, device=CPU)
    assert untracked[0].running_mean is None
