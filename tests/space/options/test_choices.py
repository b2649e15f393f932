from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Net, classify, conv
from torch import nn

import autoprune
from autoprune.config.space import SpaceOptions
from autoprune.config.validation import validated
from autoprune.errors import ConfigError, SpaceError
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.options.choices import Allowed, apply_options, exclude, freeze_groups, kinds_of, width_choices
from autoprune.testing.spaces import chain_space

RULES = st.builds(
    Allowed,
    min_ratio=st.floats(0.01, 1.0),
    min_channels=st.integers(1, 40),
    divisor=st.integers(1, 24),
    ratios=st.none() | st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6).map(tuple),
)


def choices_of(width: int, allowed: Allowed) -> Widths:
    return width_choices([(width, allowed)])


def with_options(space: SearchSpace, **keys: Any) -> SearchSpace:
    return apply_options(space, validated(SpaceOptions, keys, "test"))


def choices(space: SearchSpace) -> dict[str, Widths]:
    return {group.name: group.choices for group in space.groups}


def residual(space: SearchSpace, *names: str) -> SearchSpace:
    return replace(space, groups=tuple(replace(g, residual=g.name in names) for g in space.groups))


def heads(space: SearchSpace, *names: str) -> SearchSpace:
    return replace(space, groups=tuple(replace(g, kind="heads") if g.name in names else g for g in space.groups))


@settings(deadline=None)
@given(st.integers(1, 300), RULES)
def test_choices_ascend_to_the_full_width_in_multiples_above_the_minimum(width: int, options: Allowed) -> None:
    choices = choices_of(width, options)
    assert choices[-1] == width
    assert list(choices) == sorted(set(choices))
    for choice in choices[:-1]:
        assert choice % options.divisor == 0
        assert choice >= options.min_channels
        assert choice >= options.min_ratio * width - 1e-6


@settings(deadline=None)
@given(st.integers(1, 300), RULES.filter(lambda options: options.ratios is None))
def test_without_explicit_ratios_no_allowed_multiple_is_left_out(width: int, options: Allowed) -> None:
    least = max(options.min_channels, math.ceil(options.min_ratio * width - 1e-9))
    multiples = [n for n in range(1, width) if n % options.divisor == 0 and n >= least]
    assert list(choices_of(width, options)) == [*multiples, width]


def test_explicit_ratios_go_to_the_nearest_multiple() -> None:
    options = Allowed(ratios=(0.25, 0.5, 0.75), divisor=8)
    assert choices_of(64, options) == (16, 32, 48, 64)
    assert choices_of(24, options) == (8, 16, 24)
    assert choices_of(6, options) == (6,)


def test_a_width_that_is_no_multiple_stays_allowed() -> None:
    assert choices_of(20, Allowed(divisor=8)) == (8, 16, 20)


def test_options_reach_the_groups_of_a_traced_model() -> None:
    net = Net(lambda n, x: classify(n, n.b(n.a(x))), a=conv(3, 16), b=conv(16, 12), fc=nn.Linear(12, 5))
    options = {"divisor": 4, "min_ratio": 0.3, "exclude": ["b"]}
    space = autoprune.trace(net, torch.randn(1, 3, 6, 6), options=options)
    assert [(group.name, group.choices) for group in space.groups] == [("a", (8, 12, 16))]
    assert "excluded by 'b'" in {part.reason for part in space.frozen}
    with pytest.raises(ConfigError, match=r"unknown key 'divisr'.*Did you mean 'divisor'"):
        autoprune.trace(net, torch.randn(1, 3, 6, 6), options={"divisr": 4})


def test_the_default_options_allow_every_channel_from_a_tenth() -> None:
    space = with_options(chain_space((20, 9)))
    assert choices(space) == {"conv0": tuple(range(2, 21)), "conv1": tuple(range(1, 10))}
    assert space.notes == ()


def test_a_group_no_wider_than_the_divisor_stays_and_is_noted() -> None:
    space = with_options(chain_space((6, 16, 8, 20)), divisor=8)
    assert choices(space) == {"conv0": (6,), "conv1": (8, 16), "conv2": (8,), "conv3": (8, 16, 20)}
    assert space.notes == ("these groups stay whole, no wider than the divisor 8: conv0 (6), conv2 (8)",)
    assert len(space.groups) == 4, "they are listed, not dropped"


def test_a_group_that_the_minimum_keeps_whole_is_noted() -> None:
    space = with_options(chain_space((6, 16)), min_channels=8)
    assert choices(space) == {"conv0": (6,), "conv1": tuple(range(8, 17))}
    assert space.notes == ("these groups stay whole, minimum and ratios allow no other: conv0 (6)",)


def test_later_overrides_win_key_by_key() -> None:
    overrides = [
        {"match": "conv*", "divisor": 4, "min_ratio": 0.5},
        {"match": "conv[12]", "divisor": 8},
        {"match": "conv2", "ratios": [0.25, 0.75]},
    ]
    space = with_options(chain_space((16, 32, 64)), overrides=overrides)
    assert choices(space) == {"conv0": (8, 12, 16), "conv1": (16, 24, 32), "conv2": (48, 64)}


def test_inner_only_keeps_residual_groups_whole() -> None:
    space = with_options(residual(chain_space((4, 6, 8)), "conv1"), inner_only=True)
    assert [group.name for group in space.groups] == ["conv0", "conv2"]
    assert [(part.name, part.reason) for part in space.frozen] == [("conv1", "inner_only: it feeds a residual sum")]


def test_kinds_have_rules_of_their_own_and_overrides_win() -> None:
    space = heads(residual(chain_space((12, 64, 32, 24)), "conv1"), "conv0")
    assert kinds_of(space) == ["heads", "embedding", "mlp", "mlp"]
    kinds = {"heads": {"min_channels": 10}, "embedding": {"divisor": 16}, "mlp": {"divisor": 8, "min_ratio": 0.5}}
    cut = with_options(space, divisor=4, kinds=kinds, overrides=[{"match": "conv3", "divisor": 12}])
    expected = {"conv0": (10, 11, 12), "conv1": (16, 32, 48, 64), "conv2": (16, 24, 32), "conv3": (12, 24)}
    assert choices(cut) == expected
    assert cut.notes == ()


def test_keys_that_count_channels_do_not_count_heads() -> None:
    space = with_options(heads(chain_space((12, 64)), "conv0"), divisor=16, min_channels=16, min_ratio=0.5)
    assert choices(space) == {"conv0": tuple(range(6, 13)), "conv1": (32, 48, 64)}


def test_a_kind_that_the_model_does_not_have_is_noted() -> None:
    assert kinds_of(residual(chain_space((4, 6)), "conv0")) == ["channels", "channels"]
    space = with_options(chain_space((4, 6)), kinds={"heads": {"min_channels": 2}, "channels": {"min_channels": 3}})
    assert choices(space) == {"conv0": (3, 4), "conv1": (3, 4, 5, 6)}
    assert space.notes == ("kinds.heads: this model has no groups of this kind; the rule changes nothing",)


@pytest.mark.parametrize("keys", [{"exclude": ["conf1"]}, {"tie": [["conv0", "conf1"]]}, {"tie": ["conf1"]}])
def test_every_pattern_must_match_a_layer(keys: dict[str, Any]) -> None:
    (place,) = keys
    with pytest.raises(SpaceError, match=rf"^{place}: 'conf1' matches no layer .* Did you mean 'conv1'\?"):
        with_options(chain_space((4, 6)), **keys)
    with pytest.raises(SpaceError, match=r"^overrides: 'conf1' matches no layer .* Did you mean 'conv1'\?"):
        with_options(chain_space((4, 6)), overrides=[{"match": "conv0"}, {"match": "conf1"}])


def test_a_pattern_of_layers_that_another_key_keeps_whole_is_no_mistake() -> None:
    space = with_options(chain_space((4, 6)), exclude=["conv1"], overrides=[{"match": "conv1", "divisor": 2}])
    assert [group.name for group in space.groups] == ["conv0"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"overrides": [{"match": "a", "divisr": 3}]}, r"unknown key 'overrides\.0\.divisr'\. Did you mean 'divisor'"),
        ({"overrides": [{"divisor": 3}]}, r"key 'overrides\.0\.match' is missing"),
        ({"kinds": {"head": {}}}, r"unknown key 'kinds\.head'\. Did you mean 'heads'"),
        ({"kinds": {"heads": {"min_ratios": 1}}}, r".*Did you mean 'min_ratio'\? Allowed here: min_ratio"),
        ({"kinds": {"mlp": {"min_ratio": 2}}}, r"kinds\.mlp\.min_ratio: .*less than or equal to 1, got 2"),
        ({"per": "blok"}, r"per: .*'layer', 'block', 'stage' or 'model', got 'blok'"),
        ({"tie": [[]]}, r"tie\.0: .*at least 1 item"),
    ],
)
def test_a_mistake_in_a_space_file_is_one_clear_line(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^space: {message}"):
        validated(SpaceOptions, keys, "space")


def test_options_survive_the_way_through_a_job_file() -> None:
    keys = {"tie": ["a*", ["b", "c"]], "overrides": [{"match": "d", "ratios": [0.5]}], "kinds": {"mlp": {"divisor": 8}}}
    options = validated(SpaceOptions, keys, "space")
    assert options.tie == (("a*",), ("b", "c"))
    assert validated(SpaceOptions, options.model_dump(mode="json"), "space") == options
    assert hash(options) == hash(validated(SpaceOptions, keys, "space"))


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
    from autoprune.space.verification.flop_check import multiply_adds

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
