"""The weights that write each channel as plain arrays, for rules that compare filters."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from autoprune.errors import ConfigError
from autoprune.importance.members import group_evidence
from autoprune.space.groups import FloatArray, SearchSpace
from autoprune.space.kinds import KINDS
from autoprune.space.options.ties import set_ranges


def group_filters(model: nn.Module, space: SearchSpace) -> list[list[FloatArray]]:
    """Per group and tied set the (set width, n) weights and biases that write each channel; none for a block.

    Args:
        model: the network that was traced; only read.
        space: its space.

    Raises:
        ConfigError: the space is one of densities.
    """
    if space.densities or space.factors or space.only_bits:
        raise ConfigError(
            "this rule compares the filters of channels, which densities, ranks and bits do not cut: leave it out"
        )
    found: list[list[FloatArray]] = []
    for index, group in enumerate(space.groups):
        sets = enumerate(set_ranges(group)) if KINDS[group.kind].ranked else ()
        found.append([_rows(model, space, index, number) for number, _ in sets])
    return found


def _rows(model: nn.Module, space: SearchSpace, group: int, number: int) -> FloatArray:
    filters = group_evidence(model, space, group, number).filters
    rows: FloatArray = torch.cat([part.double().cpu() for part in filters], dim=1).numpy().astype(np.float64)
    return rows
