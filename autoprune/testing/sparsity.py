"""The contract of every sparsity training, as a test class: subclass it and give it the method.

class TestMine(SparsityContract):
    @pytest.fixture
    def method(self) -> NamedPart:
        return NamedPart(name="my_package.mine:Mine", settings={"weight": 0.1})
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from autoprune.config.parts import NamedPart
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.importance.members import ranking_of, unit_scores
from autoprune.space.copying import copy_network
from autoprune.space.cutting.slicing import slice_model
from autoprune.sparsity.base import make_sparsity
from autoprune.sparsity.training import Sparsified, SparsityPiece, sparsify
from autoprune.testing.evaluators import InterruptingWatch, tiny_bench
from autoprune.testing.generators import global_generators
from autoprune.training.integrity import Snapshot
from autoprune.training.watch import Stopped, Watch


class SparsityContract:
    """Laws that hold for every sparsity training; the subclass provides the fixture `method`."""

    @pytest.fixture
    def method(self) -> NamedPart:
        """Return the method under test, with its settings."""
        raise NotImplementedError("override the fixture `method`: it returns a NamedPart")

    @pytest.fixture
    def factory(self) -> CandidateFactory:
        """Return what is sparsified: a network that was trained, its space and its task."""
        return tiny_bench()

    def test_seeds_decide_also_after_an_interruption_and_the_callers_stays(
        self, method: NamedPart, factory: CandidateFactory
    ) -> None:
        before, generators, watch = Snapshot(factory.model), global_generators(), InterruptingWatch()
        whole = sparsified(factory, method)
        with pytest.raises(Stopped):
            sparsified(factory, method, watch=watch)
        assert_same(sparsified(factory, method, watch=watch), whole)
        assert before.changed() is None
        assert global_generators() == generators
        weights, base = load(whole.weights), factory.model.state_dict()
        assert {name: tensor.shape for name, tensor in weights.items()} == {n: t.shape for n, t in base.items()}
        assert all(bool(tensor.isfinite().all()) for tensor in weights.values())
        assert any(not torch.equal(weights[name], base[name]) for name in base)

    def test_its_widths_keep_the_budget_and_can_be_cut(self, method: NamedPart, factory: CandidateFactory) -> None:
        space, domain = factory.space, BudgetedSpace(factory.space, {"flops": "35%"})
        found = sparsified(factory, method, target=domain.uniform())
        for group, scores in zip(space.groups, found.scores, strict=True):
            assert scores.shape == (group.slots,)
            assert bool(np.isfinite(scores).all())
            assert bool((scores >= 0).all())
        widths = make_sparsity(method).widths(domain, unit_scores(space, found.scores))
        assert widths in space
        assert bool(domain.feasible(np.array([widths]))[0])
        network = copy_network(factory.model)
        network.load_state_dict(load(found.weights))
        cut = slice_model(network, space, widths, ranking_of(space, found.scores)).eval()
        outputs: Tensor = cut(torch.zeros(2, 1, 6, 6))
        assert bool(outputs.isfinite().all())
        assert found.passes > 0


def sparsified(
    factory: CandidateFactory,
    method: NamedPart,
    *,
    target: tuple[int, ...] | None = None,
    watch: Watch | None = None,
    epochs: int = 3,
) -> Sparsified:
    """The method on the factory's network, quickly; for widths of half of the FLOPs unless others are given."""
    target = target or BudgetedSpace(factory.space, {"flops": "50%"}).uniform()
    return sparsify(factory, SparsityPiece(method, epochs, 0.02, 7, target), watch)


def assert_same(one: Sparsified, other: Sparsified) -> None:
    """Check that two trainings have ended alike, to the last bit."""
    assert one.weights == other.weights
    assert all(np.array_equal(a, b) for a, b in zip(one.scores, other.scores, strict=True))
