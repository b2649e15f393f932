"""The contract of every inheritance method, as a test class: subclass it and give it the method.

class TestMine(InheritanceContract):
    @pytest.fixture
    def method(self) -> Inheritance:
        return Mine()
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autoprune.importance.members import rank_channels
from autoprune.inherit.base import Inheritance, Statistics
from autoprune.space.cutting.slicing import Slicer
from autoprune.space.groups import SearchSpace
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.testing.generators import global_generators
from autoprune.testing.once import made_once


class _Small(nn.Module):
    """A residual sum with batch norms; with `baked` only its graph can be cut."""

    def __init__(self, *, baked: bool) -> None:
        super().__init__()
        self.baked = baked
        self.stem, self.stem_norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.inner_norm = nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.back, self.head = nn.Conv2d(12, 8, 1), nn.Linear(8 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        x = x + self.back(torch.relu(self.inner_norm(self.inner(x))))
        x = nn.functional.adaptive_avg_pool2d(x, 2)
        return self.head(x.reshape(len(x), 32) if self.baked else x.flatten(1))  # type: ignore[no-any-return]


@made_once
def _network(*, baked: bool) -> tuple[nn.Module, SearchSpace]:
    """The network in the form of its space, its running statistics those of the inputs that the laws use."""
    model = _Small(baked=baked)
    for norm in (model.stem_norm, model.inner_norm):
        norm.momentum = None  # a plain average
    for inputs in _inputs(4):
        model(inputs)
    verified = verify(model.eval(), trace(model, torch.randn(2, 2, 6, 6)))
    return verified.network, verified.space


def _inputs(batches: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(8, 2, 6, 6, generator=generator) for _ in range(min(batches, 4))]


class InheritanceContract:
    """Laws that hold for every method; the subclass provides the fixture `method`."""

    @pytest.fixture
    def method(self) -> Inheritance:
        """Return the method under test."""
        raise NotImplementedError("override the fixture `method`: it returns an Inheritance")

    @pytest.fixture(params=[False, True], ids=["module", "graph"])
    def network(self, request: pytest.FixtureRequest) -> tuple[nn.Module, SearchSpace]:
        """The dense network and its space, in each form."""
        return _network(baked=request.param)

    def _applied(
        self,
        method: Inheritance,
        network: tuple[nn.Module, SearchSpace],
        *,
        full: bool,
        inputs: Callable[[int], list[Tensor]] | None = None,
    ) -> nn.Module:
        dense, space = network
        statistics = Statistics(inputs or _inputs, torch.device("cpu"))
        method.prepare(statistics)
        cut = Slicer(dense, space, rank_channels(dense, space, "l2")).cut(space.full if full else space.uniform(0.5))
        method.apply(cut, dense, statistics)
        return cut.network

    def test_a_network_cut_at_full_width_stays_as_it_is(
        self, method: Inheritance, network: tuple[nn.Module, SearchSpace]
    ) -> None:
        inputs = _inputs(1)[0]
        applied = self._applied(method, network, full=True)
        with torch.no_grad():
            assert torch.allclose(applied(inputs), network[0](inputs), rtol=1e-5, atol=1e-5)

    def test_the_same_inputs_give_the_same_network(
        self, method: Inheritance, network: tuple[nn.Module, SearchSpace]
    ) -> None:
        one, other = (self._applied(method, network, full=False).state_dict() for _ in range(2))
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
        assert all(tensor.isfinite().all() for tensor in one.values())

    def test_a_batch_that_is_not_finite_changes_nothing(
        self, method: Inheritance, network: tuple[nn.Module, SearchSpace]
    ) -> None:
        def spoilt(batches: int) -> list[Tensor]:
            return [torch.full_like(_inputs(1)[0], float("nan")), *_inputs(batches)]

        one = self._applied(method, network, full=False).state_dict()
        other = self._applied(method, network, full=False, inputs=spoilt).state_dict()
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())

    def test_the_dense_network_and_the_generators_are_only_read(
        self, method: Inheritance, network: tuple[nn.Module, SearchSpace]
    ) -> None:
        dense = network[0].train()
        before, generators = copy.deepcopy(dense.state_dict()), global_generators()
        applied = self._applied(method, network, full=False)
        assert global_generators() == generators
        assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())
        for some in (dense, applied):
            assert all(module.training for module in some.modules())
            assert all(p.requires_grad and p.grad is None for p in some.parameters())
            assert not any(module._forward_hooks or module._forward_pre_hooks for module in some.modules())
