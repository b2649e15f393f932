from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.cost.flops import flops
from autoprune.cost.params import params
from autoprune.cost.shares import group_shares, prunable
from autoprune.space.options.choices import freeze_groups
from autoprune.space.options.ties import tie
from autoprune.testing.spaces import chain_space

WIDTHS = st.lists(st.integers(1, 9), min_size=2, max_size=4)


def test_shares_of_a_chain_by_hand() -> None:
    space = chain_space((4, 8))  # 3 -> 4 -> 8 -> 10, 3x3 on 8x8 maps, then a linear layer
    products, weights = [9 * 64 * 12, 9 * 64 * 32, 80], [9 * 12, 9 * 32, 80]
    first, second = group_shares(space)
    for metric, layers in (("flops", products), ("params", weights)):
        assert first[metric] == pytest.approx((layers[0] + layers[1]) / sum(layers))
        assert second[metric] == pytest.approx((layers[1] + layers[2]) / sum(layers))
    assert prunable(space) == {"flops": 1.0, "params": 1.0}


@settings(deadline=None)
@given(WIDTHS, st.data())
def test_a_share_is_what_changes_with_the_group(widths: list[int], data: st.DataObject) -> None:
    """With the other groups full, the cost without a group's channels is what its layers do not touch."""
    space = chain_space(widths)
    index = data.draw(st.integers(0, len(widths) - 1))
    without = np.array([[0 if i == index else width for i, width in enumerate(widths)]])
    for metric, cost in (("flops", flops(space)), ("params", params(space))):
        untouched = cost(without)[0] / cost(np.array([widths]))[0]
        assert group_shares(space)[index][metric] == pytest.approx(1 - untouched)


@settings(deadline=None)
@given(WIDTHS, st.data())
def test_what_is_left_when_groups_are_frozen(widths: list[int], data: st.DataObject) -> None:
    space = chain_space(widths)
    kept = data.draw(st.integers(0, len(widths) - 1))
    less = freeze_groups(space, {i: "not today" for i in range(len(widths)) if i != kept})
    assert prunable(less) == pytest.approx(group_shares(space)[kept])
    assert prunable(freeze_groups(less, {0: "nor this"})) == {"flops": 0.0, "params": 0.0}


def test_a_tied_group_counts_a_layer_between_its_sets_once() -> None:
    (share,) = group_shares(tie(chain_space((4, 8, 12)), [(0, 1, 2)]))
    assert share == {"flops": 1.0, "params": 1.0}
