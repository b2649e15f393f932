import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.inherit.bn_recalibration import buffers_of, recalibrate_batch_norm, restore
from autoprune.space.cutting.graph_form import graph_network
from autoprune.space.tracing.trace import trace

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
    """Means over batches, by examples, of mean and unbiased variance, in float64 and without any norm module."""
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
    share = torch.tensor([len(x) for x in inputs], dtype=torch.float64) / sum(map(len, inputs))
    return [
        tuple((share[:, None] * torch.stack(part)).sum(0) for part in zip(*batches, strict=True)) for batches in found
    ]


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


class Functional(nn.Module):
    """Keeps statistics of its own, and normalises with torch's function."""

    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        self.conv, self.frozen = nn.Conv2d(3, 4, 3), frozen
        self.register_buffer("running_mean", torch.zeros(4))
        self.register_buffer("running_var", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        training = self.training and not self.frozen
        return F.batch_norm(self.conv(x), self.running_mean, self.running_var, training=training, momentum=0.1)


def kinds() -> dict[str, nn.Module]:
    """Every way to normalise with running statistics: module -> over (N, 4, ...)."""
    return {
        "1d": nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4)),
        "2d": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        "3d": nn.Sequential(nn.Unflatten(1, (3, 1)), nn.Conv3d(3, 4, (1, 3, 3)), nn.BatchNorm3d(4)),
        "synchronised": nn.Sequential(nn.Conv2d(3, 4, 3), nn.SyncBatchNorm(4)),
        "cumulative": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=None)),
        "momentum 0": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.0)),
        "without weights": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)),
        "function": Functional(),
        "double": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).double(),
    }


def statistics(net: nn.Module) -> tuple[Tensor, Tensor]:
    (mean,) = (b for name, b in net.named_buffers() if name.endswith("running_mean"))
    (variance,) = (b for name, b in net.named_buffers() if name.endswith("running_var"))
    return mean.double(), variance.double()


def before_the_norm(net: nn.Module, x: Tensor) -> Tensor:
    """(N, 4, values) that the norm of a network of `kinds` is given."""
    given = net.conv(x) if isinstance(net, Functional) else net[:-1](x)
    return given.detach().flatten(2).double()


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("spoilt", [9.0, float("nan")])
def test_every_kind_of_norm_gets_the_statistics_of_the_data(kind: str, spoilt: float):
    torch.manual_seed(0)
    net = kinds()[kind]
    for name, buffer in net.named_buffers():
        if "running" in name:
            buffer.fill_(spoilt)
    x = torch.randn(16, 3, 8, 8, dtype=next(net.parameters()).dtype)
    seen = before_the_norm(net, x)
    recalibrate_batch_norm(net, [x], device=CPU)
    mean, variance = statistics(net)
    torch.testing.assert_close(mean, seen.mean((0, 2)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(variance, seen.transpose(0, 1).flatten(1).var(1), rtol=1e-4, atol=1e-5)


def test_instance_norms_get_the_mean_of_the_statistics_of_instances():
    net, x = nn.InstanceNorm2d(3, track_running_stats=True), torch.randn(16, 3, 8, 8) + 5
    recalibrate_batch_norm(net, [x[:4], x[4:]], device=CPU)
    torch.testing.assert_close(net.running_mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(net.running_var, x.flatten(2).var(2).mean(0))


def test_functions_in_a_graph_are_recalibrated_like_in_the_model(inputs: list[Tensor]):
    class Flat(Functional):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).view(-1, 144)

    model = Flat().eval()
    traced = trace(model, inputs[0])
    graph = graph_network(model, traced.program, replace(traced.space, form="graph"), traced.example)
    for net in (graph, model):
        assert recalibrate_batch_norm(net, inputs, device=CPU)
    assert model.running_mean.abs().max() > 0
    for name, value in model.state_dict().items():
        torch.testing.assert_close(graph.state_dict()[name], value)


def test_a_norm_that_is_used_twice_sees_both_uses():
    norm = nn.BatchNorm2d(3)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = norm, norm

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) + self.other(x + 4)

    x = torch.randn(8, 3, 5, 5)
    recalibrate_batch_norm(Twice(), [x], device=CPU)
    torch.testing.assert_close(norm.running_mean, x.mean((0, 2, 3)) + 2)


def test_batches_of_one_serve_what_they_can():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3))
    x = torch.randn(6, 3, 5, 5) + 7
    recalibrate_batch_norm(net, list(x.split(1)), device=CPU)
    torch.testing.assert_close(net[0].running_mean, x.mean((0, 2, 3)))
    assert torch.equal(net[3].running_mean, torch.zeros(3)), "a single value has no variance"
    recalibrate_batch_norm(net, [x[:1], x], device=CPU)
    assert not torch.equal(net[3].running_var, torch.ones(3))


def test_an_error_leaves_the_statistics_as_they_were(model: nn.Module, inputs: list[Tensor]):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError):
        recalibrate_batch_norm(model, [inputs[0], torch.zeros(2, 99, 8, 8)], device=CPU)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", ["module", "function"])
def test_after_a_training_only_what_it_moved_is_replaced(kind: str, inputs: list[Tensor]):
    """A norm in eval mode was normalised by its statistics while the weights were trained: they are right."""
    frozen, free = {
        "module": (nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)), nn.BatchNorm2d(3)),
        "function": (Functional(frozen=True), nn.BatchNorm2d(4, momentum=0.0)),
    }[kind]
    net = nn.Sequential(frozen, free)
    before = buffers_of(net)
    assert recalibrate_batch_norm(net.train(), inputs, device=CPU, since=before) == []
    frozen.train(kind == "function")
    net[1].train()
    net(inputs[0])
    frozen_before = copy.deepcopy(frozen.state_dict())
    replaced = recalibrate_batch_norm(net, inputs, device=CPU, since=before)
    assert {id(buffer) for buffer, _ in replaced} == {id(buffer) for buffer in free.buffers()}
    assert all(torch.equal(frozen_before[name], value) for name, value in frozen.state_dict().items())
    after = copy.deepcopy(net.state_dict())
    now = restore(replaced)
    assert free.num_batches_tracked == 1
    restore(now)
    assert all(torch.equal(after[name], value) for name, value in net.state_dict().items())


def test_a_network_without_norms_is_not_run():
    class Counting(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 3)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x)

    net = Counting()
    before = buffers_of(net)
    net(torch.zeros(2, 3))
    for since in (None, before):
        assert recalibrate_batch_norm(net, [torch.zeros(2, 3)], device=CPU, since=since) == []
    assert net.calls == 1


def test_exact_statistics_are_those_of_what_the_recalibrated_network_itself_gives_each_norm() -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((3, 6), (6, 5), (5, 4)):
        layers += [nn.Conv2d(before, after, 3), nn.BatchNorm2d(after), nn.ReLU()]
    model = nn.Sequential(*layers)
    batches = [torch.randn(n, 3, 12, 12) * n for n in (4, 7, 2)]  # of different sizes and spreads
    recalibrate_batch_norm(model, batches, device=torch.device("cpu"), exact=True)
    model.eval()
    for index, norm in enumerate(model):
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        with torch.no_grad():
            given = torch.cat([model[:index](batch) for batch in batches]).movedim(1, 0).flatten(1)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert torch.allclose(norm.running_mean, given.mean(1), rtol=1e-4, atol=1e-5)
        assert torch.allclose(norm.running_var, given.var(1), rtol=1e-4)


def test_after_an_error_halfway_exact_recalibration_leaves_the_statistics_as_they_were() -> None:
    class Tired(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.calls = nn.BatchNorm1d(3), nn.BatchNorm1d(3), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls > 3:
                raise RuntimeError("tired")
            out: torch.Tensor = self.second(self.first(x))
            return out

    model = Tired()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="tired"):
        recalibrate_batch_norm(model, [torch.randn(8, 3), torch.randn(8, 3)], device=torch.device("cpu"), exact=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
