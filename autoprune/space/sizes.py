"""Sizes as functions of the widths, and the products of sizes that matrix products cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final


@final
@dataclass(frozen=True, slots=True)
class AffineSize:
    """Size of one dimension: `constant + sum(multiplicity * widths[group])`; a concat is such a sum."""

    constant: int
    terms: tuple[tuple[int, int], ...] = ()  # (group index, multiplicity)

    def __call__(self, widths: Sequence[int]) -> int:
        """Return the size at these widths."""
        return self.constant + sum(multiplicity * widths[group] for group, multiplicity in self.terms)


OperationKind: TypeAlias = Literal["conv", "linear", "matmul", "unseen"]
"""What multiplies; "unseen" ones fvcore does not count (attention, recurrent layers) or rounds (einsum)."""


@final
@dataclass(frozen=True, slots=True)
class Operation:
    """One matrix product of the graph: `coefficient` times the product of `sizes` multiply-adds."""

    layer: str
    kind: OperationKind
    coefficient: int
    sizes: tuple[AffineSize, ...]
