"""The contract of every criterion, as a test class: subclass it and give it the criterion.

class TestMine(CriterionContract):
    @pytest.fixture
    def criterion(self) -> Criterion:
        return mine
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from autoprune.importance.evidence import Activations, Curvature, Gradients, needs_of
from autoprune.importance.members import Criterion, GroupEvidence
from autoprune.testing.generators import global_generators

_WIDTH = 12


def example_group(*, norms: int = 2, dtype: torch.dtype = torch.float32) -> GroupEvidence:
    """Evidence of every kind on twelve channels: two convolutions, a bias and some batch norms, all of it random."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    shapes = ((_WIDTH, 27), (_WIDTH, 1), (_WIDTH, 144))
    filters = tuple(draw(*shape) for shape in shapes)
    scales = tuple(draw(_WIDTH) for _ in range(norms))
    readers = (draw(_WIDTH, 18), draw(_WIDTH, 45))
    share = torch.rand(_WIDTH, generator=generator).double()
    mean, second = draw(_WIDTH).double().abs(), draw(_WIDTH).double().square()
    products = tuple(draw(*shape).double() for shape in shapes)
    gradients = Gradients(mean, mean.square() + second, products, tuple(p.square() for p in products), mean)
    return GroupEvidence(
        _WIDTH, filters, scales, readers, Activations(mean, second, share, mean + share), gradients, Curvature(second)
    )


def _tensors(evidence: GroupEvidence) -> list[Tensor]:
    """All tensors in it."""
    found = [*evidence.filters, *evidence.norm_scales, *evidence.readers]
    for part in (evidence.activations, evidence.gradients, evidence.curvature):
        for item in fields(part) if part is not None else ():
            value = getattr(part, item.name)
            found += value if isinstance(value, tuple) else [value]
    return found


def _mapped(evidence: GroupEvidence, change: Callable[[Tensor], Tensor]) -> GroupEvidence:
    """The same evidence with each tensor changed."""

    def changed(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value)
        if isinstance(value, tuple):
            return tuple(map(changed, value))
        if value is None or isinstance(value, int):
            return value
        return replace(value, **{item.name: changed(getattr(value, item.name)) for item in fields(value)})

    mapped: GroupEvidence = changed(evidence)
    return mapped


def _without_channel(evidence: GroupEvidence, channel: int) -> GroupEvidence:
    """What a channel leaves that is zero everywhere: nothing, and all of its values are zeros."""
    quiet = copy.deepcopy(evidence)
    for tensor in _tensors(quiet):
        tensor[channel] = 0.0
    if quiet.activations is not None:
        quiet.activations.zeros[channel] = 1.0
    return quiet


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
        moved = _mapped(group, lambda tensor: tensor[order])
        scores = criterion(group, np.random.default_rng(0))
        assert torch.allclose(criterion(moved, np.random.default_rng(0)), scores[order])

    def test_a_channel_of_zeros_is_the_least_important(self, criterion: Criterion) -> None:
        if not self.reads_weights:
            pytest.skip("a control that looks at no weight")
        if not getattr(criterion, "zeros_last", True):
            pytest.skip("says that it need not hold: zeros_last = False")
        group = _without_channel(example_group(), 5)
        assert int(criterion(group, np.random.default_rng(0)).argmin()) == 5

    def test_it_says_what_it_needs_and_reads_nothing_else(self, criterion: Criterion) -> None:
        group, needs = example_group(), needs_of(criterion)
        asked = replace(
            group,
            readers=group.readers if "readers" in needs else (),
            activations=group.activations if "activations" in needs else None,
            gradients=group.gradients if "gradients" in needs else None,
            curvature=group.curvature if "curvature" in needs else None,
        )
        one, other = (criterion(given, np.random.default_rng(0)) for given in (group, asked))
        assert torch.equal(one, other)

    def test_channels_are_told_apart(self, criterion: Criterion) -> None:
        assert len(set(criterion(example_group(), np.random.default_rng(0)).tolist())) == _WIDTH

    def test_the_same_generator_gives_the_same_scores(self, criterion: Criterion) -> None:
        one, other = (criterion(example_group(), np.random.default_rng(7)) for _ in range(2))
        assert torch.equal(one, other)

    def test_weights_and_global_generators_are_left_as_they_were(self, criterion: Criterion) -> None:
        group = example_group()
        before, generators = copy.deepcopy(group), global_generators()
        criterion(group, np.random.default_rng(0))
        for old, new in zip(_tensors(before), _tensors(group), strict=True):
            assert torch.equal(old, new)
        assert global_generators() == generators
