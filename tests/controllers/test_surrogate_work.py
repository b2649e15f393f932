"""How much a proposal computes: what can be held without a clock."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.controllers.base import Trial, TrialState
from autoprune.controllers.surrogate import Surrogate, _first_of_order
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.score_model.kernel import Kernel
from autoprune.space.groups import FloatArray, IntArray
from autoprune.testing.spaces import chain_space


def test_covariances_of_a_batch_are_computed_once_for_each_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = BudgetedSpace(chain_space((32,) * 5), {"flops": "50%"})
    controller = Surrogate(domain, seed=0, startup=8)
    for number, widths in enumerate(controller.ask(8)):
        controller.tell([Trial(number, widths, TrialState.COMPLETE, float(np.log(widths).sum()))])
    computed = []
    whole = Kernel.between
    monkeypatch.setattr(Kernel, "between", lambda k, a, b: (computed.append(len(a.groups)), whole(k, a, b))[1])
    controller.ask(1)
    fitted, first, *children = computed
    assert fitted == 8
    assert first == 128 + 8  # what it begins with
    assert children == [64, 64, 64]  # of three rounds; the mean of all is known then


@pytest.mark.parametrize("most", [1, 3, 16, 200])
def test_the_first_of_an_order_are_those_of_a_stable_sort(most: int) -> None:
    values = np.random.default_rng(0).integers(0, 9, 100).astype(np.float64)  # many ties
    assert _first_of_order(values, most).tolist() == np.argsort(values, kind="stable")[:most].tolist()


def test_first_proposals_lie_at_every_distance_from_uniform_and_repeat_nothing() -> None:
    domain = BudgetedSpace(chain_space((64,) * 40, levels=16), {"flops": "50%"})
    controller = Surrogate(domain, seed=0, startup=30)
    controller.tell([Trial(0, domain.uniform(), TrialState.COMPLETE, 0.0)])
    first = controller.ask(29)
    members = domain.sample(200, np.random.default_rng(1))

    def distances(widths: IntArray) -> FloatArray:
        return np.linalg.norm(np.log(widths / np.array(domain.uniform())), axis=1)

    far = np.median(distances(members))
    assert distances(members).min() > 0.6 * far  # why random members alone would not do
    counts, _ = np.histogram(distances(np.array(first)) / far, bins=[0, 0.25, 0.5, 0.75, 1.5])
    assert counts.min() >= 3
    assert len({*first, domain.uniform()}) == 30
    assert domain.feasible(np.array(first)).all()
