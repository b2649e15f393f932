from __future__ import annotations

import numpy as np
import pytest
from smooth import half_of

from autoprune.controllers.base import Trial, TrialState
from autoprune.controllers.level_switch import LevelSwitch
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.testing.spaces import chain_space


def tell(controller: LevelSwitch, number: int, widths: tuple[int, ...], score: float | None) -> None:
    state = TrialState.FAILED if score is None else TrialState.COMPLETE
    controller.tell([Trial(number, widths, state, score)])


def test_a_child_has_one_group_a_level_narrower_and_another_as_wide_as_the_budget_then_allows() -> None:
    domain = BudgetedSpace(chain_space((200,) * 6), {"flops": "50%"})
    controller = LevelSwitch(domain, seed=0, switches=1, levels=10)
    (parent,) = controller.ask()
    assert parent == domain.uniform()
    tell(controller, 0, parent, 0.0)
    children = np.array(controller.ask(20))  # of 30 that there are
    changes = children - np.array(parent)
    assert ((changes <= -20).sum(axis=1) == 1).all()  # the widest narrower choice that is a tenth of 200 away
    assert (changes[changes < -2] >= -22).all()
    assert ((changes > 2).sum(axis=1) == 1).all()  # the repair may add a channel or two to fill the budget
    used = domain.budget.usage(children)
    assert (used <= 1).all()
    wider = children.copy()
    rows = np.arange(len(children))
    wider[rows, changes.argmax(axis=1)] += 1
    assert (domain.budget.usage(wider) > 1).mean() > 0.9


def test_the_best_of_a_generation_and_its_parent_is_the_next_parent() -> None:
    domain = half_of()
    controller = LevelSwitch(domain, seed=1, offspring=4)
    (parent,) = controller.ask()
    tell(controller, 0, parent, 1.0)
    first = controller.ask(4)
    for number, child in enumerate(first):
        assert controller._parent == parent
        tell(controller, 1 + number, child, -float(number))
    assert controller._parent == parent  # elitist: no child is better
    second = controller.ask(4)
    for number, child in enumerate(second):
        tell(controller, 5 + number, child, 2.0 if number == 2 else None)
    assert controller._parent == second[2]


def test_up_to_three_switches_are_drawn_and_few_are_likelier() -> None:
    domain = BudgetedSpace(chain_space((200,) * 12), {"flops": "50%"})
    controller = LevelSwitch(domain, seed=0)
    (parent,) = controller.ask()
    changed = (np.abs(np.array(controller.ask(200)) - np.array(parent)) > 10).sum(axis=1)
    share = [((changed > 2 * k) & (changed <= 2 * (k + 1))).mean() for k in range(3)]
    assert share[0] > share[1] > share[2] > 0.02
    assert changed.max() <= 6


@pytest.mark.parametrize(("settings", "name"), [({"offspring": 0}, "offspring"), ({"levels": 1}, "levels")])
def test_settings_out_of_range_are_refused(settings: dict[str, int], name: str) -> None:
    with pytest.raises(ConfigError, match=f"level_switch: {name} must be at least"):
        LevelSwitch(half_of(), seed=0, **settings)  # type: ignore[arg-type]


def test_a_parent_without_more_children_gives_way_to_the_best_known() -> None:
    domain = BudgetedSpace(chain_space((64,) * 4, levels=16), {"flops": "50%"})
    controller = LevelSwitch(domain, seed=0, trials=640, switches=1)  # 64 children of a generation, of which it has 12
    asked = []
    for number in range(30):
        (widths,) = controller.ask()
        tell(controller, number, widths, float(number))
        asked.append(widths)
    assert controller._parent != asked[0]
    assert len(set(asked)) == len(asked)
