"""How much a proposal computes: what can be held without a clock."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.controllers.base import Trial, TrialState
from autoprune.controllers.surrogate import Surrogate, _first_of_order
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.score_model.kernel import Kernel
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
