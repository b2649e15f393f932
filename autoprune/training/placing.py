"""Where networks and batches lie: on which device, in which memory format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.data.batch import Batch


def placed(model: nn.Module, device: torch.device, memory_format: torch.memory_format) -> nn.Module:
    """The model itself, moved."""
    moved: nn.Module = model.to(device, memory_format=memory_format)  # type: ignore[call-overload]  # missing in torch
    return moved


def batch_on(batch: Batch, device: torch.device, memory_format: torch.memory_format) -> Batch:
    """The same batch on a device, maps of its inputs in a memory format."""

    def laid_out(tensor: Tensor) -> Tensor:
        there = moved(tensor)
        return there.contiguous(memory_format=memory_format) if there.ndim == 4 else there

    def moved(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    return Batch(_each(laid_out, batch.inputs), _each(moved, batch.targets))


def _each(function: Callable[[Tensor], Tensor], values: Any) -> Any:
    return function(values) if isinstance(values, Tensor) else pytree.tree_map_only(Tensor, function, values)
