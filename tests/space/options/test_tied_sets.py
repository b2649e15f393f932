"""Which groups a space file ties, and which widths tied groups may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from autoprune.config.space import SpaceOptions
from autoprune.config.validation import validated
from autoprune.space.groups import SearchSpace
from autoprune.space.options.choices import Allowed, apply_options, width_choices
from autoprune.space.options.ties import tie, tied_sets
from autoprune.space.tracing.trace import trace
from autoprune.testing.spaces import chain_space
from autoprune.zoo import build_model


@pytest.mark.parametrize(
    ("channels", "divisor", "expected"),
    [
        ((64, 128), 8, (8, 16, 24, 32, 40, 48, 56, 64)),  # 128 stays a multiple by itself
        ((24, 36), 8, (8, 12)),  # 16 and 24 are the only multiples in one ratio
        ((24, 36), 4, (4, 8, 12)),
        ((40, 60), 8, (8, 16, 20)),  # 16 and 24, 32 and 48
        ((40, 60), 16, (16, 20)),  # 32 and 48
        ((16, 40), 8, (4, 8)),  # 8 and 20: no ratio fits both, so the narrower one decides
        ((16, 8), 16, (8,)),  # no multiple fits the narrower one
    ],
)
def test_the_divisor_holds_for_every_set_where_it_can(
    channels: tuple[int, ...], divisor: int, expected: tuple[int, ...]
) -> None:
    assert width_choices([(n, Allowed(divisor=divisor)) for n in channels]) == expected


def test_minimum_and_ratios_hold_for_every_set() -> None:
    assert width_choices([(8, Allowed(min_channels=2)), (32, Allowed(min_channels=15))]) == (4, 5, 6, 7, 8)
    assert width_choices([(8, Allowed(min_ratio=0.7)), (32, Allowed())]) == (6, 7, 8)
    one, other = Allowed(ratios=(0.25, 0.5)), Allowed(ratios=(0.5, 0.75))
    assert width_choices([(8, one), (16, other)]) == (4, 8)
    assert width_choices([(8, one), (16, Allowed())]) == (2, 4, 8)


def with_options(space: SearchSpace, **keys: Any) -> SearchSpace:
    return apply_options(space, validated(SpaceOptions, keys, "test"))


def sets_of(space: SearchSpace, **keys: Any) -> list[tuple[int, ...]]:
    return tied_sets(space, validated(SpaceOptions, keys, "test"))


def named(*layers: str, residual: Sequence[int] = (), positions: Sequence[int] = ()) -> SearchSpace:
    """A chain whose groups are written by layers of these names; `+` between those of one group."""
    space = chain_space([8] * len(layers))
    at = positions or [1] * len(layers)
    groups = []
    for index, (group, names) in enumerate(zip(space.groups, layers, strict=True)):
        members = tuple(names.split("+"))
        groups.append(replace(group, name=members[0], members=members, residual=index in residual, positions=at[index]))
    return replace(space, groups=tuple(groups))


def test_groups_are_tied_by_name() -> None:
    space = chain_space((8, 16, 24, 32))
    assert sets_of(space, tie=["conv[03]"]) == [(0, 3)]
    assert sets_of(space, tie=[["conv0", "conv1"], ["conv2", "conv3"]]) == [(0, 1), (2, 3)]
    assert sets_of(space, tie=["conv[01]", "conv[12]"]) == [(0, 1, 2)], "sets that overlap are one"
    tied = with_options(space, tie=["conv[03]"], divisor=4)
    assert [(g.name, g.choices) for g in tied.groups] == [
        ("conv0", (4, 8)),
        ("conv1", (4, 8, 12, 16)),
        ("conv2", (4, 8, 12, 16, 20, 24)),
    ]


def test_a_tied_group_is_residual_or_of_heads_where_one_of_its_groups_is() -> None:
    space = chain_space((8, 16, 24))
    first, second, third = space.groups
    mixed = replace(space, groups=(first, replace(second, residual=True), replace(third, kind="heads")))
    assert [(g.residual, g.kind) for g in tie(mixed, [(0, 1)]).groups] == [(True, "channels"), (False, "heads")]
    assert [(g.residual, g.kind) for g in tie(mixed, [(0, 2)]).groups] == [(False, "heads"), (True, "channels")]


def test_a_tied_group_is_as_narrow_as_its_narrowest_set() -> None:
    space = with_options(chain_space((32, 8)), tie=["*"], divisor=16)
    assert space.notes == ("these groups stay whole, no wider than the divisor 16: conv0 (32 and 8)",)


def test_a_tie_of_one_group_is_noted() -> None:
    space = with_options(chain_space((8, 16)), tie=["conv0"])
    assert space.notes == ("tie: conv0 matches fewer than two groups that are cut; nothing is tied",)


def test_a_divisor_that_no_common_ratio_keeps_is_noted() -> None:
    space = with_options(chain_space((16, 40)), tie=["*"], divisor=8)
    assert space.notes == ("conv0 (16 and 40): no common ratio gives every width a multiple of 8",)
    assert with_options(chain_space((64, 128)), tie=["*"], divisor=8).notes == ()


def test_rules_by_name_hold_for_their_set_of_a_tied_group() -> None:
    space = with_options(chain_space((8, 32)), tie=["*"], overrides=[{"match": "conv1", "min_channels": 15}])
    assert [group.choices for group in space.groups] == [(4, 5, 6, 7, 8)]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (("layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2"), [(0, 1), (2, 3)]),
        (("features.3.conv.0.0", "features.3.conv.1.0", "features.4.conv.0.0"), [(0, 1)]),
        (("stages.0.blocks.1.mlp.fc1", "stages.0.blocks.1.attn.qkv", "stages.0.blocks.10.mlp.fc1"), [(0, 1)]),
        (("0", "2", "4"), []),
        (("features.0", "features.3", "classifier"), []),
        (("0.0", "0.2", "1.0", "1.2"), [(0, 1), (2, 3)]),
        (("m.0.1.x", "m.0.10.y"), [(0, 1)]),
    ],
)
def test_a_block_is_the_path_above_the_last_number_with_two_layers(
    layers: tuple[str, ...], expected: list[tuple[int, ...]]
) -> None:
    assert sets_of(named(*layers), per="block") == expected


def test_residual_groups_that_span_blocks_are_tied_per_stage() -> None:
    space = named(
        "stem+a.0.c2+a.1.c2",
        "a.0.c1",
        "a.0.se",
        "side+a.1.c3+a.2.c3",
        "a.1.c1",
        "b.0.c2+b.1.c2",
        "b.0.c1",
        residual=(0, 3, 5),
        positions=(64, 64, 64, 64, 64, 16, 16),
    )
    assert sets_of(space, per="block") == [(0, 3), (1, 2)]


def test_a_stage_is_a_run_of_one_resolution_with_residual_groups_apart() -> None:
    space = named(*"abcdefg", residual=(0, 2, 3), positions=(64, 64, 64, 16, 16, 16, 64))
    assert sets_of(space, per="stage") == [(0, 2), (4, 5)]
    assert sets_of(space, per="model") == [(0, 2, 3), (1, 4, 5, 6)]


def test_a_squeeze_does_not_end_a_stage() -> None:
    space = named(*"abcdef", positions=(64, 1, 64, 16, 1, 16))
    assert sets_of(space, per="stage") == [(0, 2), (3, 5)]


def test_no_block_is_noted() -> None:
    assert with_options(named("0", "2"), per="block").notes == (
        "per: no two groups are in one block; each has a ratio of its own",
    )


def test_a_group_of_one_channel_spoils_no_tie() -> None:
    assert sets_of(chain_space((8, 1, 16)), per="model") == [(0, 2)]


def test_the_stages_of_a_residual_network() -> None:
    options = SpaceOptions(per="stage", divisor=4)
    space = trace(build_model("resnet20"), torch.randn(1, 3, 16, 16), options=options).space
    found = {group.name.removeprefix("stages."): (group.sets, group.residual) for group in space.groups}
    assert found == {
        "conv": ((), True),
        "stage1.0.conv1": ((16, 16, 16), False),
        "stage2.0.conv1": ((32, 32, 32), False),
        "stage2.0.conv2": ((), True),
        "stage3.0.conv1": ((64, 64, 64), False),
        "stage3.0.conv2": ((), True),
    }
