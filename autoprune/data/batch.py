"""A batch: inputs of any nesting and their targets; examples of different sizes are a list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.errors import DataError


@final
class Ragged(list[Any]):
    """One entry for each example, where examples differ in size and cannot be stacked: images, boxes.

    As inputs of a network that is called with a list it stands in a tuple, `(Ragged([…]),)`, as all positional inputs.
    """


pytree.register_pytree_node(
    Ragged,
    lambda rows: (list(rows), None),
    lambda rows, _: Ragged(rows),
    serialized_type_name="autoprune.data.batch.Ragged",
    flatten_with_keys_fn=lambda rows: ([(pytree.SequenceKey(i), row) for i, row in enumerate(rows)], None),
)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What a network is given at once, and what it should answer.

    Attributes:
        inputs: a tensor, a tuple or list of positional inputs, or a mapping of keyword inputs; examples lie along the
            first axis of every tensor, and are the entries of every `Ragged`.
        targets: a tensor, or a nesting of tensors and `Ragged`s; None where there are none.
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
            return pytree.tree_map(lambda rows: _rows(rows, start, stop), values, is_leaf=_is_ragged)

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
        found = examples_in(self.inputs)
        if found is None:
            raise DataError("a batch must hold a tensor whose first axis is that of its examples; it holds none")
        return found

    @property
    def is_ragged(self) -> bool:
        """Whether the inputs of its examples are of different sizes."""
        return any(map(_is_ragged, pytree.tree_leaves(self.inputs, is_leaf=_is_ragged)))

    def outputs(self, model: nn.Module) -> Any:
        """What a network gives for the inputs."""
        if isinstance(self.inputs, Mapping):
            return model(**self.inputs)
        return model(*self.inputs) if isinstance(self.inputs, tuple | list) else model(self.inputs)


def as_batch(drawn: Any) -> Batch:
    """What a split yields, as a batch.

    Args:
        drawn: a `Batch`, or a pair (inputs, targets).
    """
    return drawn if isinstance(drawn, Batch) else Batch(*drawn)


def examples_in(values: Any) -> int | None:
    """How many examples inputs of any nesting hold, as their first tensor or list of examples says; None: unknown."""
    for leaf in pytree.tree_leaves(values, is_leaf=_is_ragged):
        if _is_ragged(leaf) or (isinstance(leaf, Tensor) and leaf.ndim):
            return len(leaf)
    return None


def plain_lists(values: Any) -> Any:
    """The same values, every `Ragged` a list, as those who never heard of it have them."""
    return pytree.tree_map(lambda rows: list(rows) if _is_ragged(rows) else rows, values, is_leaf=_is_ragged)


def _is_ragged(value: object) -> bool:
    return isinstance(value, Ragged)


def _rows(values: Any, start: int, stop: int) -> Any:
    if isinstance(values, Ragged):
        return Ragged(values[start:stop])
    return values[start:stop] if isinstance(values, Tensor) and values.ndim else values


def _moved(values: Any, device: torch.device | str) -> Any:
    return pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), values)


def channels_last(values: Any) -> Any:
    """The same values, images (N, C, H, W) among them with their channels last in memory."""
    layout = torch.channels_last
    return pytree.tree_map_only(
        Tensor, lambda tensor: tensor.contiguous(memory_format=layout) if tensor.ndim == 4 else tensor, values
    )
