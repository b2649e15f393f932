"""The contract of every criterion, as a test class: subclass it and give it the criterion.

class TestMine(CriterionContract):
    @pytest.fixture
    def criterion(self) -> Criterion:
        return mine
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from autoprune.importance.evidence import needs_of
from autoprune.importance.members import Criterion
from autoprune.importance.needs import RUN, Members
from autoprune.importance.scoring import split
from autoprune.testing.evidence import WIDTH, example_group, reordered, tensors_of, without_channel
from autoprune.testing.generators import global_generators


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
        assert scores.shape == (WIDTH,)
        assert scores.isfinite().all()
        assert (scores >= 0).all()

    def test_the_order_of_channels_carries_no_meaning(self, criterion: Criterion) -> None:
        if not self.reads_weights:
            pytest.skip("a control that looks at no weight")
        group, order = example_group(), torch.randperm(WIDTH, generator=torch.Generator().manual_seed(1))
        moved = reordered(group, order)
        scores = criterion(group, np.random.default_rng(0))
        assert torch.allclose(criterion(moved, np.random.default_rng(0)), scores[order])

    def test_a_channel_of_zeros_is_the_least_important(self, criterion: Criterion) -> None:
        if not self.reads_weights:
            pytest.skip("a control that looks at no weight")
        if not getattr(criterion, "zeros_last", True):
            pytest.skip("says that it need not hold: zeros_last = False")
        group = without_channel(example_group(), 5)
        assert int(criterion(group, np.random.default_rng(0)).argmin()) == 5

    def test_it_says_what_it_needs_and_reads_nothing_else(self, criterion: Criterion) -> None:
        group, needs = example_group(), needs_of(criterion)
        hidden: dict[str, Any] = dict.fromkeys(RUN - needs)
        asked = replace(group, readers=group.readers if "readers" in needs else (), **hidden)
        one, other = (criterion(given, np.random.default_rng(0)) for given in (group, asked))
        assert torch.equal(one, other)

    def test_channels_are_told_apart(self, criterion: Criterion) -> None:
        assert len(set(criterion(example_group(), np.random.default_rng(0)).tolist())) == WIDTH

    def test_the_same_generator_gives_the_same_scores(self, criterion: Criterion) -> None:
        one, other = (criterion(example_group(), np.random.default_rng(7)) for _ in range(2))
        assert torch.equal(one, other)

    def test_weights_and_global_generators_are_left_as_they_were(self, criterion: Criterion) -> None:
        group = example_group()
        before, generators = copy.deepcopy(group), global_generators()
        criterion(group, np.random.default_rng(0))
        for old, new in zip(tensors_of(before), tensors_of(group), strict=True):
            assert torch.equal(old, new)
        assert global_generators() == generators

    def test_each_layer_can_be_scored_by_itself(self, criterion: Criterion) -> None:
        members: Members | None = getattr(criterion, "members", "filters")
        if members is None:
            pytest.skip("has no scores layer by layer")
        layers = split(example_group(), members)
        assert len(layers) > 1
        for one in layers:
            scores = criterion(one, np.random.default_rng(0))
            assert scores.shape == (WIDTH,)
            assert scores.isfinite().all()
