"""Tied groups are one variable of the search: same tensors, same costs, one ratio."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Net, classify, conv, image
from torch import nn

from autoprune.config.space import SpaceOptions
from autoprune.cost.flops import flops
from autoprune.cost.params import params
from autoprune.errors import SpaceError
from autoprune.space.cutting.slicing import kept_mask, slice_model
from autoprune.space.groups import AxisLayout, SearchSpace, StepLayout, WidthGroup, axis_size
from autoprune.space.options.choices import freeze_groups
from autoprune.space.options.ties import partition, rank_slots, tie
from autoprune.space.sizes import AffineSize
from autoprune.space.tracing.trace import trace
from autoprune.testing.spaces import chain_space

WIDTHS = st.lists(st.integers(1, 6).map(lambda n: 4 * n), min_size=2, max_size=5)


@st.composite
def tied_chains(draw: st.DrawFn) -> tuple[SearchSpace, list[tuple[int, ...]]]:
    """A chain and disjoint sets of its groups; every width is a multiple of four."""
    space = chain_space(draw(WIDTHS))
    colours = draw(st.lists(st.integers(0, 2), min_size=len(space.groups), max_size=len(space.groups)))
    sets = [tuple(i for i, colour in enumerate(colours) if colour == c) for c in range(2)]
    return space, [indices for indices in sets if indices]


def expanded(space: SearchSpace, sets: Sequence[tuple[int, ...]], widths: Sequence[int]) -> tuple[int, ...]:
    """The widths of the untied space that are meant by widths of the tied one."""
    full = [0] * len(space.groups)
    for indices, width in zip(partition(len(space.groups), sets), widths, strict=True):
        units = math.gcd(*(space.groups[i].width for i in indices))
        for i in indices:
            full[i] = space.groups[i].width * width // units
    return tuple(full)


@settings(deadline=None)
@given(tied_chains(), st.data())
def test_costs_are_those_of_the_untied_space_at_the_widths_that_are_meant(
    case: tuple[SearchSpace, list[tuple[int, ...]]], data: st.DataObject
) -> None:
    space, sets = case
    tied = tie(space, sets)
    widths = tuple(data.draw(st.integers(1, group.width)) for group in tied.groups)
    meant = expanded(space, sets, widths)
    for metric in (flops, params):
        assert metric(tied)(np.array([widths])) == metric(space)(np.array([meant]))
    assert expanded(space, sets, tied.full) == space.full


@settings(deadline=None)
@given(tied_chains(), st.data())
def test_as_many_indices_survive_as_the_sizes_say(
    case: tuple[SearchSpace, list[tuple[int, ...]]], data: st.DataObject
) -> None:
    space, sets = case
    tied = tie(space, sets)
    widths = tuple(data.draw(st.integers(1, group.width)) for group in tied.groups)
    rng = np.random.default_rng(0)
    ranking = tuple(rank_slots(group, rng.random(group.slots)) for group in tied.groups)
    for tensor in tied.tensors:
        for axis in tensor.axes:
            if axis is not None:
                assert kept_mask(axis, widths, ranking).sum() == axis_size(axis, tied.groups)(widths)


def test_a_tied_group_is_where_its_first_was_and_counts_in_common_units() -> None:
    space = chain_space((24, 10, 36))
    tied = tie(space, [(2, 0)])
    group = tied.groups[0]
    assert (group.name, group.width, group.sets, group.slots) == ("conv0", 12, (24, 36), 60)
    assert group.members == ("conv0", "conv2")
    assert [g.name for g in tied.groups] == ["conv0", "conv1"]
    axis = tied.tensors[2].axes[0]
    assert axis is not None
    assert set(axis.group.tolist()) == {0}
    assert axis.channel.tolist() == list(range(24, 60))
    assert tie(space, []) is space
    assert tie(space, [(1,)]) is space


def test_a_layout_that_tensors_share_is_shared_afterwards() -> None:
    tied = tie(chain_space((4, 6, 8)), [(0, 2)])
    assert tied.tensors[0].axes[0] is tied.tensors[1].axes[1]
    assert tied.tensors[1].axes[0] is tied.tensors[2].axes[1]


def test_values_of_the_graph_follow_the_ties_and_the_freezes() -> None:
    space = chain_space((4, 6, 8))
    layouts = [t.axes[0] for t in space.tensors[:3]]
    steps = [StepLayout(f"step{i}", ((1, layout),)) for i, layout in enumerate(layouts) if layout is not None]
    tied = tie(replace(space, steps=tuple(steps)), [(0, 2)])
    assert [axis is tied.tensors[i].axes[0] for i, step in enumerate(tied.steps) for _, axis in step.axes] == [True] * 3
    less = freeze_groups(tied, {0: "not today"})
    assert [step.name for step in less.steps] == ["step1"]


def test_choices_are_the_ratios_that_every_tied_group_allows() -> None:
    space = chain_space((8, 16))
    first, second = space.groups
    given_groups = (replace(first, choices=(2, 3, 4, 8)), replace(second, choices=(4, 8, 10, 16)))
    assert tie(replace(space, groups=given_groups), [(0, 1)]).groups[0].choices == (2, 4, 8)


def test_widths_without_a_common_divisor_cannot_be_tied() -> None:
    with pytest.raises(SpaceError, match=r"'conv0' \(12 wide\) and 'conv2' \(7 wide\) cannot be tied.*Exclude one"):
        tie(chain_space((12, 8, 7)), [(0, 1, 2)])


def test_a_frozen_tied_group_gives_every_layer_its_own_channels() -> None:
    tied = tie(chain_space((24, 10, 36)), [(0, 2)])
    less = freeze_groups(tied, {0: "not today"})
    assert [(p.name, p.channels) for p in less.frozen] == [("conv0", 24), ("conv2", 36)]
    assert flops(less)(np.array([[5]])) == flops(chain_space((24, 10, 36)))(np.array([[24, 5, 36]]))


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(1, 6), st.integers(0, 99))
def test_each_set_is_ranked_on_its_own_scores(factors: list[int], width: int, seed: int) -> None:
    sets = tuple(width * factor for factor in factors)
    group = WidthGroup("g", width, tuple(range(1, width + 1)), sets=sets)
    scores = np.random.default_rng(seed).random(group.slots)
    ranks, start = rank_slots(group, scores), 0
    for size in sets:
        mine, order = ranks[start : start + size], np.argsort(-scores[start : start + size])
        assert np.bincount(mine).tolist() == [size // width] * width
        assert (np.diff(mine[order]) >= 0).all()
        start += size


def test_a_group_of_one_set_is_ranked_channel_by_channel() -> None:
    group = WidthGroup("g", 5, (5,))
    assert rank_slots(group, np.array([0.5, 2.0, 0.5, 3.0, 0.0])).tolist() == [2, 1, 3, 0, 4]


def by_hand(net: Net, kept: dict[str, list[int]]) -> Net:
    """Three convolutions, each with a batch norm, that keep these channels."""
    before = [0, 1, 2]
    parts: dict[str, nn.Module] = {}
    for name in "abc":
        whole, norm, channels = getattr(net, name), getattr(net, f"n{name}"), kept[name]
        parts[name] = conv(len(before), len(channels), bias=False)
        parts[name].weight.data = whole.weight.data[channels][:, before].clone()  # type: ignore[operator, union-attr]
        parts[f"n{name}"] = nn.BatchNorm2d(len(channels))
        for field in ("weight", "bias", "running_mean", "running_var"):
            getattr(parts[f"n{name}"], field).data = getattr(norm, field).data[channels].clone()
        before = channels
    parts["fc"] = nn.Linear(len(before), 5)
    parts["fc"].weight.data = net.fc.weight.data[:, before].clone()  # type: ignore[operator, union-attr]
    parts["fc"].bias.data = net.fc.bias.data.clone()  # type: ignore[operator, union-attr]
    return Net(net._function, **parts)


@pytest.mark.parametrize("width", [1, 5, 8])
def test_a_tied_network_is_the_one_sliced_by_hand(width: int) -> None:
    def forward(n: Any, x: torch.Tensor) -> Any:
        for name in "abc":
            x = F.relu(getattr(n, f"n{name}")(getattr(n, name)(x)))
        return classify(n, x)

    torch.manual_seed(0)
    convolutions = {"a": conv(3, 16, bias=False), "b": conv(16, 24, bias=False), "c": conv(24, 10, bias=False)}
    norms = {f"n{name}": nn.BatchNorm2d(layer.out_channels) for name, layer in convolutions.items()}
    for norm in norms.values():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.data = torch.rand(tensor.shape) + 0.1
    net = Net(forward, **convolutions, **norms, fc=nn.Linear(10, 5)).eval()
    space = trace(net, image(), options=SpaceOptions(tie=(("[ab]",),))).space
    assert [group.sets for group in space.groups] == [(16, 24), ()]
    rng = np.random.default_rng(width)
    scores = [rng.random(40), rng.random(10)]
    ranking = tuple(rank_slots(group, score) for group, score in zip(space.groups, scores, strict=True))
    cut = slice_model(net, space, (width, 7), ranking)

    def best(score: np.ndarray[Any, Any], n: int) -> list[int]:
        return sorted(np.argsort(-score)[:n].tolist())

    kept = {"a": best(scores[0][:16], 2 * width), "b": best(scores[0][16:], 3 * width), "c": best(scores[1], 7)}
    assert torch.allclose(cut(image()), by_hand(net, kept).eval()(image()), atol=1e-6)


def test_an_axis_of_two_tied_groups_keeps_the_slots_of_both() -> None:
    """A concatenation of tied groups."""
    space = chain_space((4, 8))
    both = AxisLayout(np.repeat([0, 1], [4, 8]), np.r_[0:4, 0:8])
    tensors = (*space.tensors[:2], replace(space.tensors[2], shape=(10, 12), axes=(None, both)))
    last = replace(space.operations[2], sizes=(AffineSize(10), AffineSize(0, ((0, 1), (1, 1)))))
    space = replace(space, tensors=tensors, operations=(*space.operations[:2], last))
    tied = tie(space, [(0, 1)])
    assert flops(tied)(np.array([[3]])) == flops(space)(np.array([[3, 6]]))
    axis = tied.tensors[2].axes[1]
    assert axis is not None
    assert axis.channel.tolist() == list(range(12))
    assert axis_size(axis, tied.groups)((3,)) == 9
