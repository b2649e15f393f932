"""Batches that criteria run again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor
from torch.utils import _pytree as pytree

from autoprune.data.batch import Ragged, examples_in


@final
@dataclass(frozen=True, slots=True, eq=False)
class ExampleBatch:
    """A batch whose values and outputs are finite.

    Attributes:
        inputs: as the network takes them.
        targets: as the loss takes them, or None.
        number: how many examples it holds.
    """

    inputs: Any
    targets: Any
    number: int


def first_examples(given: tuple[Any, Any], most: int | None) -> ExampleBatch:
    """A batch, cut to its first examples."""
    number = examples_in(given[0]) or 1
    if most is None or number <= most:
        return ExampleBatch(given[0], given[1], number)

    def cut(value: Any) -> Any:
        if isinstance(value, Ragged):
            return Ragged(value[:most])
        return value[:most] if isinstance(value, Tensor) and value.ndim and value.shape[0] == number else value

    inputs, targets = pytree.tree_map(cut, tuple(given), is_leaf=lambda value: isinstance(value, Ragged))
    return ExampleBatch(inputs, targets, most)


def floating(values: Any) -> list[Tensor]:
    """All floating tensors in it."""
    return [t for t in pytree.tree_leaves(values) if isinstance(t, Tensor) and t.is_floating_point()]
