"""How the outputs of two networks are compared, and what is changed about inputs to do so."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from autoprune.space.copying import copy_network
from autoprune.space.tracing.program import Example

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest accepted difference between sliced and masked output, relative to the largest output, by dtype."""


def in_double(model: nn.Module, example: Example) -> tuple[nn.Module, Example]:
    """Copies of a network and its inputs in double precision."""
    doubled: Example = tree_map(
        lambda value: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value, example
    )
    return copy_network(model).double(), doubled


def varied(value: Any, factor: float) -> Any:
    """Another input of the same kind: floats scaled, integers and masks in reverse."""
    if not isinstance(value, Tensor):
        return value
    return value * factor if value.is_floating_point() else value.flip(tuple(range(value.ndim)))


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference relative to the largest expected value; infinite where it is no number."""
    if not expected.numel():
        return 0.0
    scale = expected.abs().max().clamp_min(1e-30) if expected.is_floating_point() else 1.0
    error = float((found.double() - expected.double()).abs().max() / scale)
    return error if math.isfinite(error) else math.inf
