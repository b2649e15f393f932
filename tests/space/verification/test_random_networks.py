"""Networks put together by chance: what is cut is cut rightly, and something can be cut in nearly all of them."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from random_nets import SIDE, RandomNet
from torch import Tensor, nn

from autoprune.cost import METRICS
from autoprune.errors import SpaceError
from autoprune.space.cutting.slicing import slice_model
from autoprune.space.groups import SearchSpace
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.flop_check import counted_by_fvcore, multiply_adds
from autoprune.space.verification.verify import verify
from autoprune.testing.masking import largest_error, randomised
from autoprune.testing.rules import cuts

NOT_UNDERSTOOD = "no rule|differs|does not run|computed in forward|fixed size|size is fixed"
FEW, MANY = range(30), range(100, 500)


def image(seed: int) -> Tensor:
    return torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


@cache
def network(seed: int) -> tuple[nn.Module, nn.Module, SearchSpace]:
    """A network, the same in the form of its space, and the space."""
    model = randomised(RandomNet(seed))
    traced = trace(model, image(seed))
    if traced.space.full == traced.space.smallest:  # also: no groups at all
        return model, model, traced.space
    try:
        verified = verify(model, traced)
    except SpaceError as error:
        if "do not change when channels are cut" not in str(error):
            raise
        return model, model, replace(traced.space, groups=())  # all that can be cut feeds a dead unit, or nobody
    return model, verified.network, verified.space


def assert_cuts_are_right(seed: int) -> None:
    model, network_, space = network(seed)
    if space.full == space.smallest:
        pytest.skip("no cut changes the outputs")
    params = METRICS.get("params")(space)
    for widths, ranking in cuts(space, number=3, seed=seed):
        assert largest_error(model, network_, space, image(seed), widths, ranking) < 1e-4, space.by_name(widths)
        cut = slice_model(network_, space, widths, ranking)
        assert params(np.array([widths]))[0] == sum(p.numel() for p in cut.parameters())
    assert multiply_adds(space, widths) == counted_by_fvcore(cut, image(seed))


@pytest.mark.parametrize("seed", FEW)
def test_cut_networks_compute_what_masked_ones_do(seed: int) -> None:
    assert_cuts_are_right(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", MANY)
def test_many_cut_networks_compute_what_masked_ones_do(seed: int) -> None:
    assert_cuts_are_right(seed)


def test_most_channels_of_random_networks_can_be_cut() -> None:
    """Freezing whatever is not understood would pass every other test."""
    found = [network(seed)[2] for seed in FEW]
    free = sum(group.width for space in found for group in space.groups)
    parts = [part for space in found for part in space.frozen if re.search(NOT_UNDERSTOOD, part.reason)]
    assert sum(part.channels for part in parts) < free / 10
