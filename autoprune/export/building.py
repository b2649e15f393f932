"""A network built by a factory of an export, which may not take more memory than the network that was searched."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.errors import RunError
from autoprune.randomness import seeded
from autoprune.space.groups import SearchSpace
from autoprune.zoo import build_with

_SLACK, _TIMES = 2**24, 8  # elements; initial values and tables are made and dropped
_CALLS, _CALLS_EACH = 100_000, 100


def built(
    factory: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    name: str,
    space: SearchSpace | None,
    source: str,
    limited: bool,
) -> nn.Module:
    """The full network, its initial weights drawn from a generator of their own.

    Args:
        factory: builds it.
        arguments: of the factory.
        name: of the factory, for messages.
        space: of the network; None: it may be as large as the memory of this machine.
        source: the file, for messages.
        limited: it may be no larger than that.

    Raises:
        RunError: it would be far larger than the network of the space.
        ConfigError: it cannot be built.
    """
    if not limited:
        with seeded(0):
            return build_with(factory, arguments, name=name)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    elements, tensors = memory // 4, 10_000
    if space is not None:
        full = sum(layout_size(layout.shape) for layout in space.tensors)
        if full > elements:
            raise RunError(f"{source}: the full network has {full:,} values, more than this machine has memory for")
        elements, tensors = _SLACK + _TIMES * full, len(space.tensors)
    with seeded(0), _Limit(elements, _CALLS + _CALLS_EACH * tensors, f"{source}: {name}"):
        return build_with(factory, arguments, name=name)


def layout_size(shape: tuple[int, ...]) -> int:
    """Elements of a tensor of this shape."""
    size = 1
    for length in shape:
        size *= length
    return size


@final
class _Limit(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Refuses new tensors before they are made, once there would be too many or too large ones."""

    def __init__(self, elements: int, calls: int, what: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._elements, self._calls, self._what = elements, calls, what

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        self._calls -= 1
        if not any(map(_has_tensor, (*args, *given.values()))):
            self._elements -= _size(func, args, given)
        if self._elements < 0 or self._calls < 0:
            raise RunError(
                f"{self._what} builds a network that is far larger than the one that was searched; its arguments were "
                f"changed after the search: export the run anew"
            )
        return func(*args, **given)


def _has_tensor(value: object) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, list) and any(isinstance(one, Tensor) for one in value))


def _size(func: Any, args: Any, given: Mapping[str, Any]) -> int:
    """Elements of what a call would make, found out without making it; 0 where that cannot be."""
    if "device" not in {argument.name for argument in func._schema.arguments}:
        return 0
    quiet = {name: value for name, value in given.items() if name not in ("pin_memory", "generator")}
    try:
        made = func(*args, **{**quiet, "device": torch.device("meta")})
    except (NotImplementedError, RuntimeError, TypeError):
        return 0
    return made.numel() if isinstance(made, Tensor) else 0
