"""What a network is called with, as plain JSON, and inputs drawn from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from autoprune.errors import ExportError
from autoprune.export.base import Description
from autoprune.space.origin import check_size
from autoprune.space.tracing.program import Example

_PLAIN = (type(None), bool, int, float, str)
_COLLECTIONS = {"tuple": tuple, "list": list}


def describe(example: Example) -> Description:
    """Shapes and types of an example; of tensors of integers also the range, as they may index tables.

    Raises:
        ExportError: it holds something else than tensors, numbers, texts and collections of them.
    """
    return _described(dict(example) if isinstance(example, Mapping) else example)


def drawn(description: Description, *, seed: int, batch: int | None = None) -> Example:
    """Inputs of this description: normal random numbers, and integers from the range of the example's.

    Args:
        description: from `describe`, or from the origin of a space of graph form.
        seed: of the numbers.
        batch: first dimension of all tensors that have that of the first one; None: as in the example.

    Raises:
        ExportError: the description is damaged.
    """
    own = batch_size(description)
    generator = torch.Generator().manual_seed(seed)

    def tensor(shape: list[int], dtype: torch.dtype, limits: tuple[int, int]) -> Tensor:
        size = [batch, *shape[1:]] if batch is not None and shape and shape[0] == own else shape
        if dtype.is_floating_point or dtype.is_complex:
            return torch.randn(size, generator=generator).to(dtype)
        return torch.randint(limits[0], limits[1] + 1, size, generator=generator).to(dtype)

    def made(part: Description) -> Any:
        if "tensor" in part:
            check_size(part["tensor"])
            low, high = part.get("range", (0, 0))
            return tensor(list(part["tensor"]), getattr(torch, part["dtype"]), (int(low), int(high)))
        if "mapping" in part:
            return {name: made(inner) for name, inner in part["mapping"].items()}
        for name, kind in _COLLECTIONS.items():
            if name in part:
                return kind(made(inner) for inner in part[name])
        return part["value"]

    try:
        result: Example = made(description)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RuntimeError) as error:
        raise ExportError(f"the stored description of the example input is damaged ({error}); give example=") from error
    return result


def batch_size(description: Description) -> int | None:
    """First dimension of the first tensor that has one."""
    if "tensor" in description:
        return int(description["tensor"][0]) if description["tensor"] else None
    if "mapping" in description:
        parts = list(description["mapping"].values())
    else:
        parts = description.get("tuple", description.get("list", ()))
    return next((size for part in parts if (size := batch_size(part)) is not None), None)


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors in inputs or outputs, in order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def places(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(code, value) of every leaf of an input, in the order in which PyTorch flattens it."""
    if isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from places(f"{name}[{i}]", inner)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from places(f"{name}[{key!r}]", inner)
    else:
        yield name, value


def _described(value: object) -> dict[str, Any]:
    if isinstance(value, Tensor):
        text = {"tensor": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
        if value.dtype.is_floating_point or value.dtype.is_complex or not value.numel():
            return text
        return text | {"range": [int(value.min()), int(value.max())]}
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {"mapping": {key: _described(inner) for key, inner in value.items()}}
    for name, kind in _COLLECTIONS.items():
        if type(value) is kind:
            return {name: [_described(inner) for inner in value]}
    if isinstance(value, _PLAIN):
        return {"value": value}
    raise ExportError(
        f"the example input holds a {type(value).__name__}: give tensors, numbers, texts, or tuples, lists and "
        f"mappings of them"
    )
