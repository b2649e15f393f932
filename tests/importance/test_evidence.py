"""Evidence equals what independent computations give, in module form and in graph form."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import ConfigError, EvaluationError, SpaceError
from autoprune.importance.evidence import Calibration, needs_of
from autoprune.importance.gathering import gather
from autoprune.importance.members import channel_scores, group_evidence, rank_channels
from autoprune.space.cutting.graph_form import GraphNetwork
from autoprune.space.groups import SearchSpace
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.testing.generators import global_generators


class Residual(nn.Module):
    """A sum read by two layers, a depthwise layer, and a flattened reader with several indices for each channel.

    Args:
        baked: reshape to a size that only a graph can follow.
    """

    def __init__(self, baked: bool) -> None:
        super().__init__()
        self.baked = baked
        self.stem, self.bn = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.inner, self.back = nn.Conv2d(6, 8, 1), nn.Conv2d(8, 6, 3, padding=1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.head = nn.Linear(6 * 4, 3)
        self.gate: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.read(F.relu(self.bn(self.stem(x))))
        x = F.relu(x + self.back(F.relu(self.inner(x))))
        x = F.adaptive_avg_pool2d(F.relu(self.depthwise(x)), 2)
        x = x.reshape(len(x), 24) if self.baked else x.flatten(1)
        return self.head(x)  # type: ignore[no-any-return]

    def read(self, x: Tensor) -> Tensor:
        return x


def traced(baked: bool) -> tuple[nn.Module, SearchSpace]:
    torch.manual_seed(0)
    model = Residual(baked).eval()
    verified = verify(model, trace(model, torch.randn(2, 2, 5, 5)))
    return verified.network, verified.space


@pytest.fixture(scope="module", params=[False, True], ids=["module", "graph"])
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, SearchSpace]:
    return traced(request.param)


def data(batches: int = 3, size: int = 4, classes: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 2, 5, 5, generator=generator), torch.randint(classes, (size,), generator=generator))
        for _ in range(batches)
    ]


def calibration(**changes: Any) -> Calibration:
    return Calibration(**{"batches": data(), "objective": F.cross_entropy} | changes)


def group_of(space: SearchSpace, name: str) -> int:
    return next(index for index, group in enumerate(space.groups) if group.name == name or name in str(group.members))


def scaled_readers(model: nn.Module, name: str, channel: int, factor: float) -> nn.Module:
    """The network whose weights that read a channel are scaled: what a gate of all its readers does."""
    changed = copy.deepcopy(model)
    weights = dict(changed.named_parameters())
    with torch.no_grad():
        if name == "inner":
            weights["back.weight"][:, channel] *= factor
        else:
            weights["inner.weight"][:, channel] *= factor
            weights["head.weight"][:, 4 * channel : 4 * channel + 4] *= factor
    return changed


def test_the_form_is_the_one_that_is_meant() -> None:
    assert traced(False)[1].form == "module"
    assert traced(True)[1].form == "graph"
    assert isinstance(traced(True)[0], GraphNetwork)


@pytest.mark.parametrize("name", ["inner", "stem"])
def test_fisher_is_that_of_gates_by_finite_differences(network: tuple[nn.Module, SearchSpace], name: str) -> None:
    model, space = network
    model, step = copy.deepcopy(model).double(), 1e-6
    batches = [(x.double(), y) for x, y in data()]
    scores = channel_scores(model, space, "fisher", calibration=calibration(batches=batches))[group_of(space, name)]
    for channel in range(len(scores)):
        up, down = (scaled_readers(model, name, channel, 1 + sign * step) for sign in (1, -1))
        with torch.no_grad():
            per_example = [
                (F.cross_entropy(up(x), y, reduction="none") - F.cross_entropy(down(x), y, reduction="none"))
                / (2 * step)
                for x, y in batches
            ]
        expected = torch.cat(per_example).square().mean() / 2
        assert scores[channel] == pytest.approx(float(expected), rel=1e-4, abs=1e-12)


def test_taylor_weight_is_the_square_of_gradient_times_weight(network: tuple[nn.Module, SearchSpace]) -> None:
    model, space = network
    index = group_of(space, "stem")
    expected = torch.zeros(6)
    for inputs, labels in data():
        one = copy.deepcopy(model).requires_grad_(True)
        F.cross_entropy(one(inputs), labels).backward()  # type: ignore[no-untyped-call]
        for name, weight in one.named_parameters():
            if name.partition(".")[0] in ("stem", "back", "depthwise"):
                assert weight.grad is not None
                expected += (
                    (weight.detach() * weight.grad).square().flatten(1).sum(1)
                    if weight.ndim > 1
                    else (weight.detach() * weight.grad).square()
                )
    scores = channel_scores(model, space, "taylor_weight", calibration=calibration())[index]
    assert scores == pytest.approx((expected / 3).numpy(), rel=1e-4)


def test_activations_are_what_the_readers_get(network: tuple[nn.Module, SearchSpace]) -> None:
    model, space = network
    index, values = group_of(space, "inner"), []
    for inputs, _ in data():
        with torch.no_grad():
            reference = Residual(False).eval()
            reference.load_state_dict(model.state_dict())
            stem = F.relu(reference.bn(reference.stem(inputs)))
            values.append(F.relu(reference.inner(stem)).movedim(1, 0).flatten(1))
    seen = torch.cat(values, dim=1).double()
    needs = frozenset({"activations"})
    gathered = gather(model, space, needs, calibration(), what="it")  # type: ignore[arg-type]
    found = group_evidence(model, space, index, needs=needs, gathered=gathered).activations  # type: ignore[arg-type]
    assert found is not None
    assert torch.allclose(found.mean, seen.mean(1), rtol=1e-5)
    assert torch.allclose(found.variance, seen.var(1, unbiased=False), rtol=1e-4)
    assert torch.allclose(found.mean_abs, seen.abs().mean(1), rtol=1e-5)
    assert torch.allclose(found.zeros, (seen == 0).double().mean(1))
    scores = channel_scores(model, space, "apoz", calibration=calibration(objective=None))[index]
    assert scores == pytest.approx((seen != 0).double().mean(1).numpy())


@pytest.mark.parametrize("criterion", ["apoz", "taylor_weight", "fisher"])
def test_the_model_and_the_generators_are_only_read(network: tuple[nn.Module, SearchSpace], criterion: str) -> None:
    model, space = network
    model.train()
    before, flags = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    generators = global_generators()
    scores = channel_scores(model, space, criterion, calibration=calibration())
    again = channel_scores(model, space, criterion, calibration=calibration())
    assert all(np.array_equal(one, other) for one, other in zip(scores, again, strict=True))
    assert global_generators() == generators
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [m.training for m in model.modules()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    model.eval()


@pytest.mark.parametrize("criterion", ["apoz", "taylor_weight", "fisher"])
def test_batches_that_are_not_finite_are_left_out_and_counted(
    network: tuple[nn.Module, SearchSpace], criterion: str
) -> None:
    model, space = network
    broken = (torch.full((4, 2, 5, 5), torch.nan), torch.zeros(4, dtype=torch.long))
    mixed = calibration(batches=[data()[0], broken, *data()[1:]])
    whole = channel_scores(model, space, criterion, calibration=calibration())
    without = channel_scores(model, space, criterion, calibration=mixed)
    assert all(np.array_equal(one, other) for one, other in zip(whole, without, strict=True))
    needs = needs_of(_part(criterion))
    gathered = gather(model, space, needs, mixed, what="it")
    assert gathered is not None
    assert (gathered.batches, gathered.skipped) == (3, 1)
    with pytest.raises(EvaluationError, match="all 2 have values that are not finite"):
        channel_scores(model, space, criterion, calibration=calibration(batches=[broken, broken]))


def _part(name: str) -> Callable[..., Any]:
    from autoprune.importance import CRITERIA

    found: Callable[..., Any] = CRITERIA.get(name)
    return found


def test_missing_data_or_a_missing_loss_are_named(network: tuple[nn.Module, SearchSpace]) -> None:
    model, space = network
    with pytest.raises(ConfigError, match="'apoz' needs activations: give it data"):
        rank_channels(model, space, "apoz")
    with pytest.raises(ConfigError, match="'fisher' needs curvature and so a loss"):
        rank_channels(model, space, "fisher", calibration=calibration(objective=None))
    with pytest.raises((ConfigError, SpaceError), match=r"cannot run the network on calibration|any batch size"):
        rank_channels(model, space, "apoz", calibration=calibration(batches=[(torch.randn(2, 9), None)]))


def test_readers_are_the_weights_that_read_the_channels(network: tuple[nn.Module, SearchSpace]) -> None:
    model, space = network
    (rows,) = group_evidence(model, space, group_of(space, "inner"), needs=("readers",)).readers
    assert torch.equal(rows, dict(model.named_parameters())["back.weight"].detach().movedim(1, 0).flatten(1))
    assert group_evidence(model, space, group_of(space, "inner")).readers == ()
