"""A batch: inputs of any nesting and their targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.errors import DataError


@final
@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What a network is given at once, and what it should answer.

    Attributes:
        inputs: a tensor, a tuple or list of positional inputs, or a mapping of keyword inputs; examples lie along the
            first axis of every tensor.
        targets: a tensor, or a nesting of tensors; None where there are none.
    """

    inputs: Any
    targets: Any = None

    def to(self, device: torch.device | str) -> Batch:
        """The same values on a device."""
        return Batch(_moved(self.inputs, device), _moved(self.targets, device))

    def first(self, count: int) -> Batch:
        """Its first examples, all of them where it has no more."""
        return self if count >= len(self) else self.part(0, count)

    def part(self, start: int, stop: int) -> Batch:
        """Its examples from one number on, up to another."""

        def cut(values: Any) -> Any:
            return pytree.tree_map_only(Tensor, lambda tensor: tensor[start:stop] if tensor.ndim else tensor, values)

        return Batch(cut(self.inputs), cut(self.targets))

    def split(self, most: int) -> list[Batch]:
        """Its examples in order, in batches of at most so many."""
        count = len(self)
        return [self] if count <= most else [self.part(start, start + most) for start in range(0, count, most)]

    def __len__(self) -> int:
        """How many examples it holds.

        Raises:
            DataError: no tensor among the inputs says so.
        """
        first = next((leaf for leaf in pytree.tree_leaves(self.inputs) if isinstance(leaf, Tensor) and leaf.ndim), None)
        if first is None:
            raise DataError("a batch must hold a tensor whose first axis is that of its examples; it holds none")
        return len(first)

    def outputs(self, model: nn.Module) -> Any:
        """What a network gives for the inputs."""
        if isinstance(self.inputs, Mapping):
            return model(**self.inputs)
        return model(*self.inputs) if isinstance(self.inputs, tuple | list) else model(self.inputs)


def _moved(values: Any, device: torch.device | str) -> Any:
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), values)


def channels_last(values: Any) -> Any:
    """The same values, images (N, C, H, W) among them with their channels last in memory."""
    layout = torch.channels_last
    return pytree.tree_map_only(
        Tensor, lambda tensor: tensor.contiguous(memory_format=layout) if tensor.ndim == 4 else tensor, values
    )
