"""The contract of every allocation rule, as a test class: subclass it and give it the rule.

class TestMine(AllocationContract):
    @pytest.fixture
    def rule(self) -> Rule:
        return mine
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import pytest

from autoprune.allocation.base import needs_of
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import AutopruneError, BudgetError
from autoprune.space.groups import AxisLayout, FloatArray, SearchSpace, TensorLayout, Widths
from autoprune.testing.controllers import block_space
from autoprune.testing.generators import global_generators
from autoprune.testing.spaces import chain_space

Rule: TypeAlias = Callable[..., Widths]
"""`rule(domain, scores, **needs) -> widths`, its settings given."""

_WIDTHS = (16, 32, 64, 24)
_BUDGETS: tuple[dict[str, Any], ...] = (
    {"flops": "10%"},
    {"flops": "50%"},
    {"params": "30%"},
    {"flops": "95%"},
    {"flops": "60%", "params": "35%"},
    {"flops": {"min": "40%", "max": "50%"}, "params": "60%"},
)


def tied_space() -> SearchSpace:
    """A chain whose second group stands for two tied layers, of 16 and 32 channels."""
    space = chain_space(_WIDTHS)
    groups = list(space.groups)
    groups[1] = replace(groups[1], width=16, choices=tuple(range(1, 17)), sets=(16, 32))
    return SearchSpace(tuple(groups), (), space.operations, space.tensors[:2])


def heads_space() -> SearchSpace:
    """A chain whose third group counts heads, two of its groups feed residual sums, and its stages differ."""
    space = chain_space((16, 24, 4, 32))
    changes: tuple[dict[str, Any], ...] = (
        {"residual": True, "positions": 64},
        {"positions": 64},
        {"kind": "heads", "positions": 16},
        {"residual": True, "positions": 16},
    )
    groups = tuple(replace(g, **change) for g, change in zip(space.groups, changes, strict=True))
    return SearchSpace(groups, (), space.operations, space.tensors)


def single_choice_space() -> SearchSpace:
    """A chain of which one group can have its full width only, and one has a single channel."""
    space = chain_space((16, 8, 1, 24))
    groups = tuple(replace(g, choices=g.choices[-1:]) if i == 1 else g for i, g in enumerate(space.groups))
    return SearchSpace(groups, (), space.operations, space.tensors)


def left_out_space() -> SearchSpace:
    """A stem and three residual blocks that can be left out, with their weights."""
    space = block_space()
    stem, inner = space.groups[0].width, [g for g, group in enumerate(space.groups) if group.name.endswith(".conv")]
    tensors = [weight("stem.weight", (stem, 3, 3, 3), 0, None)]
    for g in inner:
        name, width = space.groups[g].name, space.groups[g].width
        tensors.append(weight(f"{name}.weight", (width, stem, 3, 3), g, 0))
        tensors.append(weight(f"{name}2.weight", (stem, width, 3, 3), 0, g))
    return SearchSpace(space.groups, (), space.operations, tuple(tensors), blocks=space.blocks)


SPACES: dict[str, Callable[[], SearchSpace]] = {
    "chain": lambda: chain_space(_WIDTHS),
    "coarse": lambda: chain_space(_WIDTHS, levels=8),
    "tied": tied_space,
    "heads": heads_space,
    "blocks": left_out_space,
    "single choice": single_choice_space,
}


def random_scores(space: SearchSpace, seed: int = 0) -> list[FloatArray]:
    """Per group positive scores, on a scale of its own."""
    rng = np.random.default_rng(seed)
    return [rng.gamma(1.0, rng.uniform(0.1, 10.0), size=group.width) for group in space.groups]


def random_filters(space: SearchSpace, seed: int = 0) -> list[list[FloatArray]]:
    """Per group and tied set random weights; none for a block."""
    rng = np.random.default_rng(seed)
    return [
        [rng.standard_normal((width, 12)) for width in (group.sets or (group.width,))] if group.kind != "blocks" else []
        for group in space.groups
    ]


def smooth_probe(space: SearchSpace) -> Callable[[Sequence[Widths]], FloatArray]:
    """Score networks by a formula: what each group loses grows with the log of what is cut, at a rate of its own."""
    rates = 1.0 + np.arange(len(space.groups))

    def probe(rows: Sequence[Widths]) -> FloatArray:
        ratios = np.maximum(np.array(rows, dtype=np.float64), 0.5) / np.array(space.full)
        scores: FloatArray = 90.0 - (rates * np.log(ratios) ** 2).sum(axis=1)
        return scores

    return probe


def call(rule: Rule, domain: BudgetedSpace, scores: Sequence[FloatArray]) -> Widths:
    """Call a rule with what it says it needs."""
    needs = needs_of(getattr(rule, "func", rule))
    given: dict[str, Any] = {}
    if "probe" in needs:
        given["probe"] = smooth_probe(domain.space)
    if "filters" in needs:
        given["filters"] = random_filters(domain.space)
    if "slots" in needs:
        rng = np.random.default_rng(1)
        given["slots"] = [rng.gamma(1.0, size=group.slots) for group in domain.space.groups]
    return rule(domain, scores, **given)


class AllocationContract:
    """Laws that hold for every rule; the subclass provides the fixture `rule`.

    Attributes:
        scale_free: the widths do not change when all scores of all groups are multiplied by one number.
        even: the largest difference of ratios that equal scores give in a chain; None: the rule goes by something else
            than scores.
    """

    scale_free = True
    even: float | None = None

    @pytest.fixture
    def rule(self) -> Rule:
        """Return the rule under test."""
        raise NotImplementedError("override the fixture `rule`: it returns a function (domain, scores) -> widths")

    @pytest.mark.parametrize("kind_of_space", SPACES)
    @pytest.mark.parametrize("budget", _BUDGETS, ids=str)
    def test_widths_are_a_member_inside_every_limit(
        self, rule: Rule, kind_of_space: str, budget: dict[str, Any]
    ) -> None:
        try:
            domain = BudgetedSpace(SPACES[kind_of_space](), budget)
        except BudgetError:
            pytest.skip("this space cannot meet this budget at all")
        try:
            widths = call(rule, domain, random_scores(domain.space))
        except BudgetError:
            pytest.skip("the rule says that it cannot meet this budget")
        assert isinstance(widths, tuple)
        assert all(type(width) is int for width in widths)
        assert widths in domain.space
        assert domain.feasible(np.array([widths]))[0]

    def test_a_budget_that_does_not_bind_leaves_everything(self, rule: Rule) -> None:
        domain = BudgetedSpace(SPACES["chain"](), {"flops": "100%"})
        assert call(rule, domain, random_scores(domain.space)) == domain.space.full

    def test_most_of_the_budget_is_used(self, rule: Rule) -> None:
        domain = BudgetedSpace(SPACES["chain"](), {"flops": "50%"})
        widths = call(rule, domain, random_scores(domain.space))
        assert domain.budget.usage(np.array([widths]))[0] >= 0.97

    def test_the_same_scores_give_the_same_widths_and_nothing_is_changed(self, rule: Rule) -> None:
        domain = BudgetedSpace(SPACES["chain"](), {"flops": "40%"})
        scores = random_scores(domain.space)
        before, generators = [s.copy() for s in scores], global_generators()
        assert call(rule, domain, scores) == call(rule, domain, scores)
        assert all(np.array_equal(a, b) for a, b in zip(before, scores, strict=True))
        assert global_generators() == generators

    def test_the_unit_of_all_scores_means_nothing(self, rule: Rule) -> None:
        if not self.scale_free:
            pytest.skip("says that it need not hold: scale_free = False")
        domain = BudgetedSpace(SPACES["chain"](), {"flops": "40%"})
        scores = random_scores(domain.space)
        assert call(rule, domain, [1024.0 * s for s in scores]) == call(rule, domain, scores)

    def test_the_order_of_channels_means_nothing(self, rule: Rule) -> None:
        domain = BudgetedSpace(SPACES["chain"](), {"flops": "40%"})
        scores = random_scores(domain.space)
        assert call(rule, domain, [s[::-1].copy() for s in scores]) == call(rule, domain, scores)

    def test_equal_scores_give_near_equal_ratios(self, rule: Rule) -> None:
        if self.even is None:
            pytest.skip("goes by something else than scores")
        domain = BudgetedSpace(SPACES["chain"](), {"flops": "40%"})
        widths = call(rule, domain, [np.ones(group.width) for group in domain.space.groups])
        assert np.ptp(np.array(widths) / domain.space.full) <= self.even

    def test_scores_that_do_not_fit_are_refused_or_not_looked_at(self, rule: Rule) -> None:
        domain = BudgetedSpace(SPACES["chain"](), {"flops": "40%"})
        good = random_scores(domain.space)
        expected = call(rule, domain, good)
        for bad in (good[:-1], [*good[:-1], good[-1][:-1]], [np.full_like(good[0], np.nan), *good[1:]]):
            told = "group"
            try:
                assert call(rule, domain, bad) == expected
            except AutopruneError as error:
                told = str(error)
            assert "group" in told  # names which one, or how many


def grouped_layout(group: int, width: int) -> AxisLayout:
    """The layout of an axis that holds the channels of one group in order."""
    return AxisLayout(np.full(width, group), np.arange(width))


def weight(name: str, shape: tuple[int, ...], out: int | None, into: int | None) -> TensorLayout:
    """The layout of a weight (out, in, ...) that writes one group and reads another; None where nothing is cut."""
    axes = [None if g is None else grouped_layout(g, shape[d]) for d, g in enumerate((out, into))]
    return TensorLayout(name, shape, "parameter", (*axes, *[None] * (len(shape) - 2)), reads=(1,))
