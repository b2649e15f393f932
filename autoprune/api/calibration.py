"""Calibration data as Python code gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.importance.evidence import Calibration, Objective


def calibration_batches(given: Any) -> list[tuple[Any, Any]]:
    """(inputs, targets) of each batch; targets None where there are none.

    Args:
        given: None, a tensor or a mapping of keyword inputs (one batch), or batches, each the inputs or a pair with
            targets (several positional inputs are a tuple in it, `((first, second), None)`).

    Raises:
        ConfigError: it is something else.
    """
    if given is None:
        return []
    if isinstance(given, Tensor | Mapping):
        return [(given, None)]
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise ConfigError(
            f"calibration must be a tensor of inputs or a loader or list of batches, got {type(given).__name__}"
        )
    return [(b[0], b[1]) if isinstance(b, tuple | list) and len(b) == 2 else (b, None) for b in given]


def as_calibration(batches: list[tuple[Any, Any]], objective: Objective | None, device: torch.device) -> Calibration:
    """Batches with their loss: cross entropy where none is given and all targets are whole numbers."""
    labelled = all(isinstance(t, Tensor) and not t.is_floating_point() for _, t in batches)
    return Calibration(batches, objective or (F.cross_entropy if labelled else None), device)


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter of a model lies."""
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
