from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Net, classify, conv
from torch import nn

import autoprune
from autoprune.config import SpaceOptions
from autoprune.errors import ConfigError, SpaceError
from autoprune.space.choices import exclude, freeze_groups, width_choices
from autoprune.testing.spaces import chain_space

OPTIONS = st.builds(
    SpaceOptions,
    min_ratio=st.floats(0.01, 1.0),
    min_channels=st.integers(1, 40),
    divisor=st.integers(1, 24),
    ratios=st.none() | st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6).map(tuple),
)


@settings(deadline=None)
@given(st.integers(1, 300), OPTIONS)
def test_choices_ascend_to_the_full_width_in_multiples_above_the_minimum(width: int, options: SpaceOptions) -> None:
    choices = width_choices("conv", width, options)
    assert choices[-1] == width
    assert list(choices) == sorted(set(choices))
    for choice in choices[:-1]:
        assert choice % options.divisor == 0
        assert choice >= options.min_channels
        assert choice >= options.min_ratio * width - 1e-6


@settings(deadline=None)
@given(st.integers(1, 300), OPTIONS.filter(lambda options: options.ratios is None))
def test_without_explicit_ratios_no_allowed_multiple_is_left_out(width: int, options: SpaceOptions) -> None:
    least = max(options.min_channels, math.ceil(options.min_ratio * width - 1e-9))
    multiples = [n for n in range(1, width) if n % options.divisor == 0 and n >= least]
    assert list(width_choices("conv", width, options)) == [*multiples, width]


def test_explicit_ratios_go_to_the_nearest_multiple() -> None:
    options = SpaceOptions(ratios=(0.25, 0.5, 0.75), divisor=8)
    assert width_choices("conv", 64, options) == (16, 32, 48, 64)
    assert width_choices("conv", 24, options) == (8, 16, 24)
    assert width_choices("conv", 6, options) == (6,)


def test_a_width_that_is_no_multiple_stays_allowed() -> None:
    assert width_choices("conv", 20, SpaceOptions(divisor=8)) == (8, 16, 20)


def test_options_reach_the_groups_of_a_traced_model() -> None:
    net = Net(lambda n, x: classify(n, n.b(n.a(x))), a=conv(3, 16), b=conv(16, 12), fc=nn.Linear(12, 5))
    options = {"divisor": 4, "min_ratio": 0.3, "exclude": ["b"]}
    space = autoprune.trace(net, torch.randn(1, 3, 6, 6), options=options)
    assert [(group.name, group.choices) for group in space.groups] == [("a", (8, 12, 16))]
    assert "excluded by 'b'" in {part.reason for part in space.frozen}
    with pytest.raises(ConfigError, match=r"unknown key 'divisr'.*Did you mean 'divisor'"):
        autoprune.trace(net, torch.randn(1, 3, 6, 6), options={"divisr": 4})


def test_exclusion_is_by_shell_pattern_over_the_layers_of_a_group() -> None:
    space = chain_space((4, 6, 8))
    assert [g.name for g in exclude(space, ("conv[02]",)).groups] == ["conv1"]
    assert [(p.name, p.channels, p.reason) for p in exclude(space, ("*1",)).frozen] == [
        ("conv1", 6, "excluded by '*1'")
    ]
    assert exclude(space, ()) is space


def test_a_pattern_that_matches_nothing_is_refused_with_a_suggestion() -> None:
    with pytest.raises(SpaceError, match=r"'conf1' matches no layer that could be cut. Did you mean 'conv1'\?"):
        exclude(chain_space((4, 6)), ("conv0", "conf1"))


@settings(deadline=None)
@given(st.lists(st.integers(2, 9), min_size=2, max_size=4), st.data())
def test_a_space_without_a_group_costs_what_it_did_with_that_group_full(widths: list[int], data: st.DataObject) -> None:
    from autoprune.space.verify import multiply_adds

    space = chain_space(widths)
    index = data.draw(st.integers(0, len(widths) - 1))
    less = freeze_groups(space, {index: "not today"})
    given_widths = tuple(data.draw(st.sampled_from(group.choices)) for group in less.groups)
    whole = (*given_widths[:index], widths[index], *given_widths[index:])
    assert multiply_adds(less, given_widths) == multiply_adds(space, whole)
    assert less.fingerprint != space.fingerprint


def test_uniform_nearest_and_check() -> None:
    space = chain_space((8, 8), levels=4)  # 2, 4, 6, 8
    assert space.uniform(0.5) == (4, 4)
    assert space.nearest([4.9, 100]) == (4, 8)
    assert space.nearest([3, 5]) == (2, 4)  # ties go down
    assert (4, 4) in space
    assert (4, 5) not in space
    assert [4, 4] not in space
    with pytest.raises(SpaceError, match=r"'conv1' cannot be 5 wide; allowed: 2, 4, 6, 8\. space.nearest"):
        space.check((4, 5))
    with pytest.raises(SpaceError, match="1 widths given for 2 groups"):
        space.check((4,))
    with pytest.raises(SpaceError, match="1 widths given for 2 groups"):
        space.nearest((4,))
    for ratio in (0.0, 1.1, -1.0, math.nan):
        with pytest.raises(SpaceError, match="must be above 0 and at most 1"):
            space.uniform(ratio)


@pytest.mark.parametrize("widths", [[float("nan"), 1.0], ["a", 2], 5, [1.0]])
def test_what_is_not_one_number_per_group_is_refused(widths: object) -> None:
    space = chain_space([8, 8])
    for method in (space.nearest, space.check):
        with pytest.raises(SpaceError):
            method(widths)  # type: ignore[arg-type]


def test_a_fraction_of_a_channel_is_not_a_width() -> None:
    with pytest.raises(SpaceError, match=r"cannot be 4\.5 wide"):
        chain_space([8, 8]).check([4.5, 8])
