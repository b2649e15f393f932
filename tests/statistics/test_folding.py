from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.space.cutting.graph_form import graph_network
from autoprune.space.tracing.trace import trace
from autoprune.statistics.folding import Folded, NotFoldedError, foldable


def _settled(model: nn.Module) -> nn.Module:
    """Norms that do something: statistics, scales and shifts that are not those of a new one."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.instancenorm._InstanceNorm):
            for tensor, least in (
                (module.running_mean, -0.5),
                (module.running_var, 0.5),
                (module.weight, 0.5),
                (module.bias, -0.5),
            ):
                if tensor is not None:
                    tensor.data = least + torch.rand(tensor.shape, generator=generator)
    return model.eval()


class Functional(nn.Module):
    """A convolution and a norm as functions, with parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3, 3, 3))
        self.register_buffer("mean", torch.randn(5))
        self.register_buffer("variance", torch.rand(5) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        made = F.conv2d(x, weight=self.weight, padding=1)
        return F.batch_norm(made, self.mean, self.variance, None, None, False, 0.1, 1e-3).relu()


class ReadTwice(nn.Module):
    """What the convolution gives is also added to what the norm makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv(x)
        return made + self.norm(made)  # type: ignore[no-any-return]


class Returned(ReadTwice):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        made = self.conv(x)
        return made, self.norm(made)


class Shared(nn.Module):
    """One norm behind two convolutions, and one convolution in front of two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.norm = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.last, self.other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        made = self.norm(self.two(self.norm(self.one(x)).relu())).relu()
        return self.other(self.two(self.last(self.two(made)).relu()))  # type: ignore[no-any-return]


class Halved(nn.Module):
    """A linear layer over the last axis, normalised along the second one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 4), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))  # type: ignore[no-any-return]


IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("build", "inputs", "folds"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()), IMAGES, 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False)), IMAGES, 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 6, 1, groups=3), nn.BatchNorm2d(6, eps=0.1)), IMAGES, 1),
        (lambda: nn.Sequential(nn.ConvTranspose2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)), IMAGES, 1),
        (lambda: nn.Sequential(nn.ConvTranspose2d(3, 6, 3, stride=2), nn.BatchNorm2d(6)), IMAGES, 1),
        (lambda: nn.Sequential(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6)), IMAGES[..., 0], 1),
        (lambda: nn.Sequential(nn.Conv3d(3, 6, 3), nn.BatchNorm3d(6)), IMAGES[..., None].repeat(1, 1, 1, 1, 4), 1),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)), IMAGES, 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.InstanceNorm2d(6, track_running_stats=True)), IMAGES, 1),
        (Functional, IMAGES, 1),
        (ReadTwice, IMAGES, 0),
        (Returned, IMAGES, 0),
        (Shared, IMAGES, 0),
        (Halved, IMAGES.flatten(1)[:, :36].unflatten(1, (6, 6)), 0),
        (lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.BatchNorm2d(6)), IMAGES, 0),
        (lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=False)), IMAGES, 0),
        (
            lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 6, 3)), nn.BatchNorm2d(6)),
            IMAGES,
            0,
        ),
    ],
)
def test_a_folded_network_gives_what_it_gave_and_is_as_it_was(
    build: type[nn.Module], inputs: Tensor, folds: int
) -> None:
    torch.manual_seed(0)
    model = _settled(build())
    before = copy.deepcopy(model.state_dict())
    found = foldable(model, inputs)
    assert len(found) == folds
    mode = Folded(model, found)
    with torch.inference_mode(), mode:
        outputs = model(inputs)
    mode.check()
    with torch.no_grad():
        expected = model(inputs)
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_no_norm_runs_where_it_is_folded() -> None:
    """Torch's own fusion leaves out as many."""
    model = _settled(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)))
    with torch.profiler.profile() as plain, torch.no_grad():
        model(IMAGES)
    mode = Folded(model, foldable(model, IMAGES))
    with torch.profiler.profile() as folded, torch.no_grad(), mode:
        model(IMAGES)
    counts = [sum("batch_norm" in event.key for event in run.key_averages()) for run in (plain, folded)]
    assert counts[0] > 0
    assert counts[1] == 0


def test_a_network_that_runs_as_its_graph_is_folded_alike() -> None:
    model = _settled(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1)))
    traced = trace(model, IMAGES[:2])
    network = graph_network(model, traced.program, traced.space, traced.example)
    found = [[(fold.weight, fold.norm.mean) for fold in foldable(one, IMAGES)] for one in (model, network)]
    assert found[0] == found[1] == [("0.weight", "1.running_mean")]
    outputs = []
    for one in (model, network):
        with torch.no_grad(), Folded(one, foldable(one, IMAGES)):
            outputs.append(one(IMAGES))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=0)


def test_a_network_that_runs_otherwise_than_it_was_looked_at_is_refused() -> None:
    model = _settled(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))
    mode = Folded(model, foldable(model, IMAGES))
    with torch.no_grad(), mode:
        model[0](IMAGES)
    with pytest.raises(NotFoldedError, match="without its norm"):
        mode.check()
    with torch.no_grad(), mode, pytest.raises(NotFoldedError, match="something else"):
        model[1](IMAGES)
