"""Controllers over one ratio per stage, block or model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from smooth import search

from autoprune.controllers import CONTROLLERS, make_controller
from autoprune.controllers.base import Controller, Trial, TrialState
from autoprune.controllers.legr import LeGR
from autoprune.controllers.wrappers.coarse import Coarse
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, Widths
from autoprune.testing.spaces import chain_space

FULL = (96, 96, 192, 192, 384, 384)
STAGES = ((0, 1), (2, 3), (4, 5))


def staged(flops: str = "50%") -> BudgetedSpace:
    """Three stages of two groups each, one block per stage."""
    space = chain_space(FULL)
    groups = [
        replace(group, positions=64 // 4 ** (i // 2), members=(f"stage{i // 2}.0.conv{i % 2}",))
        for i, group in enumerate(space.groups)
    ]
    return BudgetedSpace(replace(space, groups=tuple(groups)), {"flops": flops})


def spread(widths: Widths) -> float:
    """The largest difference of the ratios in a stage."""
    ratios = np.array(widths) / FULL
    return max(float(abs(ratios[a] - ratios[b])) for a, b in STAGES)


@pytest.mark.parametrize("per", ["stage", "block"])
@pytest.mark.parametrize("name", CONTROLLERS.names())
def test_groups_of_a_stage_share_one_ratio_with_every_controller(name: str, per: str) -> None:
    domain = staged()
    controller = make_controller(name, domain, seed=0, settings={"per": per}, trials=20)
    found = [widths for widths, _ in search(controller, lambda w: float(w[0] - w[5]), 20, batch=3)]
    assert all(widths in domain.space for widths in found)
    assert max(spread(widths) for widths in found) < 0.12  # what is left of the budget is filled group by group
    assert np.median([spread(widths) for widths in found]) < 0.04
    assert len(set(found)) > 12
    if controller.keeps_budget:
        assert domain.feasible(np.array(found)).all()
        used = domain.budget.usage(np.array(found))
        several = name in ("pareto", "partial_order")
        assert used.min() > 0.97 or several
        assert used.min() < 0.6 or not several  # its smaller budgets are not filled up


def test_per_model_leaves_one_ratio() -> None:
    domain = staged()
    controller = make_controller("random", domain, seed=0, settings={"per": "model"})
    for widths in controller.ask(3):
        assert np.abs(np.array(widths) / FULL - np.array(domain.uniform()) / FULL).max() < 0.1


class Recorder(Controller):
    def __init__(self, inner: Controller) -> None:
        self.told: list[Trial] = []
        self._inner = inner

    def ask(self, n: int = 1) -> list[Widths]:
        return self._inner.ask(n)

    def tell(self, trials: object) -> None:
        self.told += trials  # type: ignore[operator]


def test_the_controller_learns_its_own_proposals_and_what_has_equal_ratios() -> None:
    domain = staged()
    recorders: list[Recorder] = []

    def inner(coarse: BudgetedSpace, importance: object) -> Controller:
        recorders.append(Recorder(make_controller("random", coarse, seed=0, settings={})))
        return recorders[-1]

    controller = Coarse(domain, per="stage", inner=inner)
    (own,) = controller.ask(1)
    uneven = (96, 10, 192, 20, 200, 30)
    told = [own, domain.uniform(), uneven, FULL]
    controller.tell([Trial(i, widths, TrialState.COMPLETE, float(i)) for i, widths in enumerate(told)])
    (recorder,) = recorders
    assert [trial.number for trial in recorder.told] == [0, 1, 3]
    assert recorder.told[-1].widths == (96, 192, 384)
    assert all(len(trial.widths) == 3 for trial in recorder.told)


def test_a_repeated_proposal_is_told_once() -> None:
    domain = BudgetedSpace(chain_space((32, 64, 64, 128)), {"flops": "50%"})  # one ratio leaves one candidate
    recorders: list[Recorder] = []

    def inner(coarse: BudgetedSpace, importance: object) -> Controller:
        recorders.append(Recorder(make_controller("random", coarse, seed=0, settings={})))
        return recorders[-1]

    found = search(Coarse(domain, per="model", inner=inner), lambda w: float(w[0]), 12, batch=3)
    assert len(set(found)) < 12
    assert [trial.number for trial in recorders[0].told] == list(range(12))


def test_importances_are_merged_unit_by_unit() -> None:
    """A unit of a tied group is worth the channels that come with it, the best ones first."""
    seen: list[list[FloatArray]] = []

    def inner(coarse: BudgetedSpace, importance: object) -> Controller:
        seen.append(importance)  # type: ignore[arg-type]
        return LeGR(coarse, seed=0, importance=importance)  # type: ignore[arg-type]

    importance = [np.arange(width, dtype=np.float64) for width in FULL]
    Coarse(staged(), per="stage", inner=inner, importance=importance)
    assert [len(of_group) for of_group in seen[0]] == [96, 192, 384]
    assert list(seen[0][0][:3]) == [190.0, 188.0, 186.0]


def test_a_region_around_the_best_works_on_the_coarse_space() -> None:
    domain = staged()
    controller = make_controller("random", domain, seed=0, settings={"per": "stage", "trust_region": 0.1})
    controller.tell([Trial(0, domain.uniform(), TrialState.COMPLETE, 1.0)])
    for widths in controller.ask(5):
        assert np.abs(np.log(np.array(widths) / np.array(domain.uniform()))).max() < 0.3


def test_an_unknown_granularity_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'stage'"):
        make_controller("random", staged(), seed=0, settings={"per": "stages"})
