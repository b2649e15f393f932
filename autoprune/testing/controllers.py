"""The contract of every controller, as a test class: subclass it and give it a factory.

class TestMine(ControllerContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda domain, seed: Mine(domain, seed=seed)
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import pytest

from autoprune.controllers.base import Controller, Trial, TrialState
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import Block, SearchSpace, WidthGroup, Widths
from autoprune.space.sizes import AffineSize, Operation
from autoprune.testing.spaces import chain_space

Make: TypeAlias = Callable[[BudgetedSpace, int], Controller]
"""(domain, seed) -> a new controller."""

_FULL = (16, 24, 32, 24, 16)
_BATCHES, _BATCH = 6, 4


def roomy_domain() -> BudgetedSpace:
    """Five groups, eight choices each, half of the FLOPs: some hundred members inside the budget."""
    return BudgetedSpace(chain_space(_FULL, levels=8), {"flops": "50%"})


def block_space() -> SearchSpace:
    """A stem of 32 channels and three residual blocks with an inner width each, all of which can be left out."""
    groups, operations = [WidthGroup("stem", 32, tuple(range(4, 33)))], []
    stem = AffineSize(0, ((0, 1),))
    for number in range(3):
        inner, switch = AffineSize(0, ((2 * number + 1, 1),)), AffineSize(0, ((2 * number + 2, 1),))
        groups.append(WidthGroup(f"block{number}.conv", 32, tuple(range(4, 33))))
        groups.append(WidthGroup(f"block:block{number}", 1, (0, 1), kind="blocks"))
        operations.append(Operation(f"block{number}.conv", "conv", 2 * 9 * 64, (stem, inner, switch)))
    operations.append(Operation("stem", "conv", 9 * 64, (AffineSize(3), stem)))
    blocks = tuple(Block(f"block{number}", "x", "y", (number,)) for number in range(3))
    return SearchSpace(tuple(groups), (), tuple(operations), blocks=blocks)


def score_of(widths: Widths) -> float:
    """A smooth score whose best widths are not uniform."""
    return -sum(
        (math.log(w / full) + 0.2 * (i + 1)) ** 2 for i, (w, full) in enumerate(zip(widths, _FULL, strict=True))
    )


def finish(proposals: Sequence[Widths], start: int, *, score: Callable[[Widths], float] = score_of) -> list[Trial]:
    """Return complete trials of the proposals, numbered from `start`."""
    return [Trial(start + i, w, TrialState.COMPLETE, score(w)) for i, w in enumerate(proposals)]


def drive(
    controller: Controller, batches: int = _BATCHES, *, score: Callable[[Widths], float] = score_of
) -> list[Widths]:
    """Ask and tell batches; return all proposals."""
    asked: list[Widths] = []
    for _ in range(batches):
        proposals = controller.ask(_BATCH)
        controller.tell(finish(proposals, len(asked), score=score))
        asked += proposals
    return asked


class ControllerContract:
    """Laws that hold for every controller; the subclass provides the fixture `make`."""

    @pytest.fixture
    def make(self) -> Make:
        """Return the factory under test."""
        raise NotImplementedError("override the fixture `make`: it returns a function (domain, seed) -> Controller")

    @pytest.mark.parametrize("budget", ["15%", "50%", "100%"])
    def test_proposals_are_members_inside_the_budget(self, make: Make, budget: str) -> None:
        domain = BudgetedSpace(chain_space(_FULL, levels=8), {"flops": budget})
        controller = make(domain, 0)
        _assert_allowed(controller, domain, drive(controller))

    def test_exactly_as_many_proposals_as_asked_for(self, make: Make) -> None:
        controller = make(roomy_domain(), 0)
        for n in (5, 1, 0, 3):
            assert len(controller.ask(n)) == n
        assert len(controller.ask()) == 1

    def test_same_seed_and_calls_give_the_same_proposals(self, make: Make) -> None:
        assert drive(make(roomy_domain(), 3)) == drive(make(roomy_domain(), 3))

    def test_another_seed_gives_other_proposals(self, make: Make) -> None:
        assert drive(make(roomy_domain(), 3)) != drive(make(roomy_domain(), 4))

    def test_global_generators_are_neither_read_nor_moved(self, make: Make) -> None:
        np.random.seed(1)
        first = drive(make(roomy_domain(), 3))
        after = np.random.random()
        np.random.seed(1)
        assert after == np.random.random()
        assert drive(make(roomy_domain(), 3)) == first

    def test_order_inside_one_tell_does_not_matter(self, make: Make) -> None:
        a, b = make(roomy_domain(), 1), make(roomy_domain(), 1)
        for step in range(_BATCHES):
            trials = finish(a.ask(_BATCH), _BATCH * step)
            assert b.ask(_BATCH) == [trial.widths for trial in trials]
            a.tell(trials)
            b.tell(trials[::-1])
        assert a.ask(_BATCH) == b.ask(_BATCH)

    def test_the_callers_list_is_only_read(self, make: Make) -> None:
        controller = make(roomy_domain(), 1)
        trials = finish(controller.ask(_BATCH), 0)[::-1]
        before = list(trials)
        controller.tell(trials)
        controller.ask(_BATCH)
        assert trials == before

    def test_replaying_asks_and_tells_reproduces_a_stopped_run(self, make: Make) -> None:
        def run(steps: int) -> tuple[Controller, list[tuple[list[Widths], list[Trial]]]]:
            controller, log, pending, told = make(roomy_domain(), 5), [], list[Widths](), 0
            for step in range(steps):
                asked = controller.ask(1 + step % 3)
                pending += asked
                trials = finish(pending[: step % 4], told)  # the others are told later
                pending, told = pending[step % 4 :], told + len(trials)
                controller.tell(trials)
                log.append((asked, trials))
            return controller, log

        _, whole = run(14)
        _, part = run(8)
        resumed = make(roomy_domain(), 5)
        for asked, trials in part:
            assert resumed.ask(len(asked)) == asked
            resumed.tell(trials)
        for asked, trials in whole[8:]:
            assert resumed.ask(len(asked)) == asked
            resumed.tell(trials)

    @pytest.mark.parametrize(
        ("state", "score"),
        [(TrialState.FAILED, None), (TrialState.COMPLETE, math.nan), (TrialState.COMPLETE, math.inf)],
    )
    def test_failed_and_unscored_trials_teach_nothing(self, make: Make, state: TrialState, score: float | None) -> None:
        """A controller that sees unusable scores goes on exactly like one that sees failures without any."""
        domain = roomy_domain()
        a, b = make(domain, 2), make(domain, 2)
        for step in range(_BATCHES):
            asked = a.ask(_BATCH)
            assert b.ask(_BATCH) == asked
            _assert_allowed(a, domain, asked)
            a.tell([Trial(_BATCH * step + i, w, state, score) for i, w in enumerate(asked)])
            b.tell([Trial(_BATCH * step + i, w, TrialState.FAILED, None) for i, w in enumerate(asked)])
        good = drive(a, 3)
        assert drive(b, 3) == good

    def test_pruned_trials_are_accepted(self, make: Make) -> None:
        domain = roomy_domain()
        controller = make(domain, 2)
        for step in range(_BATCHES):
            asked = controller.ask(_BATCH)
            _assert_allowed(controller, domain, asked)
            states = [TrialState.PRUNED if i % 2 else TrialState.COMPLETE for i in range(_BATCH)]
            controller.tell([Trial(_BATCH * step + i, w, states[i], score_of(w)) for i, w in enumerate(asked)])

    def test_nothing_told_or_pending_is_repeated_where_candidates_abound(self, make: Make) -> None:
        controller = make(roomy_domain(), 6)
        asked = drive(controller) + controller.ask(_BATCH) + controller.ask(_BATCH)
        assert len(set(asked)) == len(asked)

    def test_what_it_has_learned_for_other_budgets_can_be_written_down(self, make: Make) -> None:
        controller = make(roomy_domain(), 4)
        drive(controller)
        learned = controller.learned()
        assert json.loads(json.dumps(learned, allow_nan=False)) == learned

    def test_hundreds_of_trials_of_others_are_learned_from(self, make: Make) -> None:
        domain = roomy_domain()
        controller = make(domain, 7)
        members = [tuple(map(int, row)) for row in domain.sample(300, np.random.default_rng(0))]
        foreign = [domain.space.full, domain.space.smallest, *members]  # also outside the budget band
        controller.tell(finish(foreign, 0))
        _assert_allowed(controller, domain, drive(controller, 3))

    def test_a_space_with_one_choice_per_group_is_searched(self, make: Make) -> None:
        space = chain_space(_FULL)
        fixed = tuple(WidthGroup(g.name, g.width, (g.width,), g.members) for g in space.groups)
        domain = BudgetedSpace(SearchSpace(fixed, (), space.operations, space.tensors), {"flops": "100%"})
        assert set(drive(make(domain, 0))) == {space.full}

    def test_a_budget_that_leaves_few_candidates_is_searched(self, make: Make) -> None:
        space = chain_space((8, 8), levels=3)
        domain = BudgetedSpace(space, {"flops": "40%"})
        controller = make(domain, 0)
        _assert_allowed(controller, domain, drive(controller, 6, score=lambda w: float(sum(w))))

    def test_a_budget_that_leaves_one_candidate_is_searched(self, make: Make) -> None:
        space = chain_space((8, 8), levels=3)
        least = BudgetedSpace(space, {"flops": "100%"}).budget.costs_of(space.smallest)["flops"]
        domain = BudgetedSpace(space, {"flops": least})
        controller = make(domain, 0)
        asked = drive(controller, 6, score=lambda w: float(sum(w)))
        assert space.smallest in asked
        _assert_allowed(controller, domain, asked)

    def test_a_single_group_is_searched(self, make: Make) -> None:
        domain = BudgetedSpace(chain_space((32,)), {"flops": "50%"})
        controller = make(domain, 0)
        _assert_allowed(controller, domain, drive(controller, 6, score=lambda w: float(w[0])))

    def test_it_always_has_an_answer(self, make: Make) -> None:
        """Also for many proposals at once with no result yet, and while single results arrive out of order."""
        domain = roomy_domain()
        controller = make(domain, 0)
        pending = controller.ask(25)
        for step in range(12):
            trials = finish([pending.pop((7 * step) % len(pending)) for _ in range(1 + step % 3)], 3 * step)
            controller.tell(trials)
            pending += controller.ask(3 - step % 3)
        _assert_allowed(controller, domain, pending)
        assert len(set(pending)) == len(pending)

    def test_any_seed_of_a_job_is_accepted(self, make: Make) -> None:
        assert drive(make(roomy_domain(), 2**63 - 1), 2) != drive(make(roomy_domain(), 2**32), 2)

    def test_blocks_come_and_go(self, make: Make) -> None:
        domain = BudgetedSpace(block_space(), {"flops": "50%"})
        controller = make(domain, 0)
        asked = drive(controller, 6, score=lambda w: float(w[2] - w[4] + 0.01 * w[0]))
        _assert_allowed(controller, domain, asked)

    def test_equal_scores_are_survived(self, make: Make) -> None:
        domain = roomy_domain()
        controller = make(domain, 0)
        _assert_allowed(controller, domain, drive(controller, 8, score=lambda _: 0.5))

    def test_two_trials_of_the_same_widths_are_both_accepted(self, make: Make) -> None:
        domain = roomy_domain()
        controller = make(domain, 0)
        for step in range(4):
            asked = controller.ask(_BATCH)
            controller.tell(finish([*asked, *asked], 2 * _BATCH * step))
        _assert_allowed(controller, domain, controller.ask(_BATCH))


def _assert_allowed(controller: Controller, domain: BudgetedSpace, proposals: Sequence[Widths]) -> None:
    assert all(widths in domain.space for widths in proposals)
    assert all(type(width) is int for widths in proposals for width in widths)
    assert not controller.keeps_budget or domain.feasible(np.array(proposals)).all()
