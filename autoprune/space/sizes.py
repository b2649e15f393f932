"""Sizes as functions of the widths, and what is made of them: matrix products, values and calls of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final


@final
@dataclass(frozen=True, slots=True)
class AffineSize:
    """Size of one dimension: `constant + sum(multiplicity * widths[group])`; a concat is such a sum."""

    constant: int
    terms: tuple[tuple[int, int], ...] = ()  # (group index, multiplicity)

    def __call__(self, widths: Sequence[int]) -> int:
        """Return the size at these widths."""
        return self.constant + sum(multiplicity * widths[group] for group, multiplicity in self.terms)


OperationKind: TypeAlias = Literal["conv", "linear", "matmul", "unseen", "uncounted"]
"""What multiplies; "unseen" ones fvcore does not count (attention, recurrent layers) or rounds (einsum), "uncounted"
ones no counter does (products with a vector, bilinear layers)."""


@final
@dataclass(frozen=True, slots=True)
class Operation:
    """One matrix product of the graph: `coefficient` times the product of `sizes` multiply-adds."""

    layer: str
    kind: OperationKind
    coefficient: int
    sizes: tuple[AffineSize, ...]


@final
@dataclass(frozen=True, slots=True)
class Activation:
    """One value of the traced graph: an input or a result, no parameter or buffer.

    Attributes:
        name: its graph node; outputs of a node with several are `name.0`, `name.1`, …
        sizes: one per dimension.
        bytes: per element, as traced.
        storage: index of the activation whose memory it lies in: itself, unless it is a view or was written in place;
            -1 where it lies in a parameter or buffer.
        last: index of the last call during which its memory is held in eager mode, for its `storage` the latest of all
            that share it; -1 throughout (the inputs, which the caller holds).
        batched: it follows from an input, so that its first sizes grow with the batch.
        dtype: of its elements, as torch names it.
    """

    name: str
    sizes: tuple[AffineSize, ...]
    bytes: int
    storage: int
    last: int = -1
    batched: bool = True
    dtype: str = "float32"


@final
@dataclass(frozen=True, slots=True)
class KernelCall:
    """One operator call of the graph.

    Attributes:
        operator: its name without namespace and overload, "conv2d".
        layer: path of the module that owns the first parameter it reads, else of the module that made the call.
        inputs: indices of the activations it reads, in argument order.
        outputs: indices of the activations it makes.
        weights: shapes of the parameters and buffers it reads, in argument order.
        settings: the other arguments by name, defaults included, as traced (`groups` of a depthwise convolution is the
            full number); plain numbers, texts and tuples of them.
        switch: index of the block group that switches it off; -1: always there.
        splits: of a matrix product, pairs (position among `inputs`, dimension of the result): this leading dimension
            of the input and the next one do not lie one after another in memory.
    """

    operator: str
    layer: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    weights: tuple[tuple[AffineSize, ...], ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()
    switch: int = -1
    splits: tuple[tuple[int, int], ...] = ()
