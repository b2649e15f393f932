"""Operator calls at new widths: sizes baked into a traced graph are replaced by what is left of them.

How the arguments of an operator follow the widths says its row in `rules`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from torch import fx

from autoprune.space.tracing.functions import MARK

Arguments: TypeAlias = dict[str, Any]


@final
@dataclass(frozen=True, eq=False)
class Sized:
    """One operator call at new widths.

    Attributes:
        node: the call in the traced graph; its `meta["val"]` has the original shapes.
        arguments: argument name -> value, tensors already at their new sizes.
        shape: number of the output, None where there is one -> its new shape.
        before: (dimension, traced count) -> how many of the indices before a slice are left.
    """

    node: fx.Node
    arguments: Arguments
    shape: Callable[[int | None], tuple[int, ...]]
    before: Callable[[int, int], int]

    @property
    def out(self) -> tuple[int, ...]:
        """New shape of the result."""
        return self.shape(None)

    def traced_shape(self, argument: str) -> tuple[int, ...]:
        """Shape that a tensor argument had in the traced graph."""
        schema = self.node.target._schema.arguments  # type: ignore[union-attr]
        position = [a.name for a in schema].index(argument)
        given = self.node.args[position] if position < len(self.node.args) else self.node.kwargs[argument]
        shape: tuple[int, ...] = given.meta["shapes"][0]  # type: ignore[union-attr]
        return shape


def name_of(node: fx.Node) -> str:
    """Name under which the labels of a node's value are kept: outputs of a node with several are `name.0`, …"""
    if node.target is operator.getitem:
        return f"{name_of(node.args[0])}.{node.args[1]}"  # type: ignore[arg-type]
    return node.name


def operator_name(node: fx.Node) -> str:
    """Name without namespace and overload: "conv2d"."""
    return str(getattr(node.target, "__name__", node.target)).split(".")[0]


def named_arguments(node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
    """Arguments by the names of the operator's schema."""
    names = [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
    return dict(zip(names, args, strict=False)) | dict(kwargs)


NO_KERNEL = ("getitem", MARK)
"""Operator names that stand for no computation."""


def first_index(start: int | None, length: int) -> int:
    """First index that a slice takes."""
    return 0 if start is None else min(length, start + length if start < 0 else start)
