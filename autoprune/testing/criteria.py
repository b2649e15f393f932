"""The contract of every criterion, as a test class: subclass it and give it the criterion.

class TestMine(CriterionContract):
    @pytest.fixture
    def criterion(self) -> Criterion:
        return mine
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from autoprune.importance.members import Criterion, GroupTensors
from autoprune.testing.generators import global_generators

_WIDTH = 12


def example_group(*, norms: int = 2, dtype: torch.dtype = torch.float32) -> GroupTensors:
    """A group of twelve channels: two convolutions, a bias and some batch norms, all of them random."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    filters = (draw(_WIDTH, 27), draw(_WIDTH, 1), draw(_WIDTH, 144))
    return GroupTensors(_WIDTH, filters, tuple(draw(_WIDTH) for _ in range(norms)))


class CriterionContract:
    """Laws that hold for every criterion; the subclass provides the fixture `criterion`.

    Attributes:
        reads_weights: False for a control that looks at no weight.
    """

    reads_weights = True

    @pytest.fixture
    def criterion(self) -> Criterion:
        """Return the criterion under test."""
        raise NotImplementedError("override the fixture `criterion`: it returns a function (tensors, rng) -> scores")

    @pytest.mark.parametrize("norms", [0, 1, 3])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_one_finite_number_of_at_least_zero_per_channel(
        self, criterion: Criterion, norms: int, dtype: torch.dtype
    ) -> None:
        scores = criterion(example_group(norms=norms, dtype=dtype), np.random.default_rng(0))
        assert scores.shape == (_WIDTH,)
        assert scores.isfinite().all()
        assert (scores >= 0).all()

    def test_the_order_of_channels_carries_no_meaning(self, criterion: Criterion) -> None:
        if not self.reads_weights:
            pytest.skip("a control that looks at no weight")
        group, order = example_group(), torch.randperm(_WIDTH, generator=torch.Generator().manual_seed(1))
        moved = GroupTensors(_WIDTH, *(tuple(t[order] for t in ts) for ts in (group.filters, group.norm_scales)))
        scores = criterion(group, np.random.default_rng(0))
        assert torch.allclose(criterion(moved, np.random.default_rng(0)), scores[order])

    def test_a_channel_of_zeros_is_the_least_important(self, criterion: Criterion) -> None:
        if not self.reads_weights:
            pytest.skip("a control that looks at no weight")
        group = copy.deepcopy(example_group())
        for tensor in (*group.filters, *group.norm_scales):
            tensor[5] = 0.0
        assert int(criterion(group, np.random.default_rng(0)).argmin()) == 5

    def test_channels_are_told_apart(self, criterion: Criterion) -> None:
        assert len(set(criterion(example_group(), np.random.default_rng(0)).tolist())) == _WIDTH

    def test_the_same_generator_gives_the_same_scores(self, criterion: Criterion) -> None:
        one, other = (criterion(example_group(), np.random.default_rng(7)) for _ in range(2))
        assert torch.equal(one, other)

    def test_weights_and_global_generators_are_left_as_they_were(self, criterion: Criterion) -> None:
        group = example_group()
        before, generators = copy.deepcopy(group), global_generators()
        criterion(group, np.random.default_rng(0))
        for old, new in zip(before.filters + before.norm_scales, group.filters + group.norm_scales, strict=True):
            assert torch.equal(old, new)
        assert global_generators() == generators
