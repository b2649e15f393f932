"""What the two least-squares methods share: their data, and the ridge that holds a fit where data say nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.inherit.base import Statistics
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import tensor_of
from autoprune.statistics.calls import WeightCall
from autoprune.statistics.rows import weight_matrix
from autoprune.statistics.running import examples_of

IMAGES = 512
"""Calibration examples that weights are fitted on."""

ROWS = 32_768
"""Positions of all examples together that are looked at, where there are so many."""


MOST_INPUTS = 20_000
"""Inputs of one output beyond which a layer is left alone: its moments alone would take 3 GB."""


def ridge(second: Tensor, count: int) -> Tensor:
    """(groups,) what is added to the diagonal of (groups, D, D) second moments of `count` rows.

    As if there were D more rows of independent inputs with the mean power of all, for which the weights are right as
    they were sliced: little against many rows, and the slice where no row says anything.
    """
    power = second.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    least = 1e3 * torch.finfo(second.dtype).eps  # so that a factor exists where inputs repeat each other
    return torch.where(power > 0, power * max(second.shape[-1] / max(count, 1), least), torch.ones_like(power))


def with_ridge(second: Tensor, added: Tensor) -> Tensor:
    """Second moments with the ridge on their diagonal."""
    return second + added[:, None, None] * torch.eye(second.shape[-1], dtype=second.dtype, device=second.device)


def calibration(method: str, statistics: Statistics, images: int) -> tuple[Sequence[Any], int]:
    """Batches with about so many examples together, and at how many positions of each to look.

    Raises:
        ConfigError: there are no calibration inputs.
    """
    batches = statistics.needed_examples(method, images)
    return batches, math.ceil(ROWS / max(sum(map(examples_of, batches)), 1))


def check_images(method: str, images: object) -> int:
    """A number of examples.

    Raises:
        ConfigError: no whole number of at least 1.
    """
    if not isinstance(images, int) or isinstance(images, bool) or images < 1:
        raise ConfigError(f"{method}: images must be at least 1, a whole number, got {images!r}")
    return images


def expanded(indices: Tensor, taps: int) -> Tensor:
    """Columns of a channel-major axis of (channels, taps) that belong to these channels."""
    return (indices[:, None] * taps + torch.arange(taps, device=indices.device)).flatten()


def lost_inputs(cut: Cut) -> list[str]:
    """Weights of the cut network that read fewer channels than in the dense one."""
    layouts = (layout for layout in cut.space.tensors if layout.name in cut.kept)
    return sorted(t.name for t in layouts if any(cut.kept[t.name][dim] is not None for dim in t.reads))


def too_wide(call: WeightCall, model: nn.Module, *, taps: bool = True) -> str:
    """Why a layer has more inputs than moments can be held of; empty where it has not.

    Args:
        call: the layer's.
        model: the network that it is in.
        taps: count the taps of a kernel one by one.
    """
    size = weight_matrix(call, tensor_of(model, call.name).detach()).shape[2]
    size //= 1 if taps else math.prod(call.kernel)
    if size <= MOST_INPUTS:
        return ""
    return f"moments of its {size:,} inputs would take {size**2 * 8 / 1e9:.0f} GB (at most {MOST_INPUTS:,} inputs)"


def kept_outputs(cut: Cut, call: WeightCall, dense: Tensor) -> list[tuple[int, Tensor]] | None:
    """(group, which of its outputs survive) for each group of a dense call that does; None where numbers differ."""
    writes = 1 - call.reads
    total, kept = dense.shape[writes], cut.kept[call.name][writes]
    kept = torch.arange(total) if kept is None else kept
    if call.kind == "transposed":  # the axis holds the outputs of one group, all have the same
        return [(group, kept) for group in range(call.groups)]
    own = total // call.groups
    rows = [(group, kept[kept // own == group] - group * own) for group in range(call.groups)]
    rows = [(group, chosen) for group, chosen in rows if len(chosen)]
    return rows if len({len(chosen) for _, chosen in rows}) == 1 else None


def kept_inputs(cut: Cut, call: WeightCall) -> Tensor | None:
    """Channels of each group of a dense call that survive; None where they are no even part of every group."""
    kept = cut.kept[call.name][call.reads]
    if kept is None or call.kind != "transposed" or call.groups == 1:
        return kept
    if len(kept) % call.groups:
        return None
    by_group = kept.reshape(call.groups, -1)
    own = next(t.shape[0] for t in cut.space.tensors if t.name == call.name) // call.groups
    within = by_group - own * torch.arange(call.groups)[:, None]
    even = bool((within == within[0]).all() & (within >= 0).all() & (within < own).all())
    return within[0] if even else None
