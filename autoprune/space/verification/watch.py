"""What a module really computes: every operator it calls, on the level of the traced graph, with shapes and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, final

import torch
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

SAMPLE = 4096
"""Elements of a larger value that are kept, drawn at random: a wrong cut moves all of a value, not one element."""


@final
@dataclass(frozen=True, eq=False)
class Value:
    """Shape and elements of one value, at the time it was made."""

    shape: tuple[int, ...]
    elements: Tensor

    @property
    def largest(self) -> float:
        """The largest finite magnitude."""
        finite = self.elements[self.elements.isfinite()]
        return float((finite.double() if not finite.is_complex() else finite).abs().max()) if finite.numel() else 0.0


@final
@dataclass(frozen=True, eq=False)
class Made:
    """One call.

    Attributes:
        target: the ATen overload.
        arguments: by name; a tensor is the `Origin` of its value.
        outputs: of a call that makes several, all of them.
    """

    target: Any
    arguments: Mapping[str, Any]
    outputs: tuple[Value | None, ...]


@final
@dataclass(frozen=True, slots=True)
class Origin:
    """Where a tensor argument comes from.

    Attributes:
        call: number of the call that made it, -1: a parameter, a constant or an input.
        shape: what it had.
    """

    call: int
    shape: tuple[int, ...]


def value_of(tensor: Tensor) -> Value:
    """Sample a value, the same elements for the same shape."""
    flat = tensor.detach().reshape(-1)
    return Value(tuple(tensor.shape), flat.clone() if flat.numel() <= SAMPLE else flat[_places(flat.numel())])


@lru_cache(maxsize=256)
def _places(number: int) -> Tensor:
    return torch.randint(0, number, (SAMPLE,), generator=torch.Generator().manual_seed(number))


def watched(run: Callable[[], Any]) -> tuple[list[Made], frozenset[int]]:
    """Run something and return its calls, and the numbers of those that made its outputs."""
    mode = _Watch()
    with enable_python_dispatcher(), mode:
        outputs = run()
    return mode.calls, frozenset(mode.origin(v).call for v in tree_leaves(outputs) if isinstance(v, Tensor))


@final
class _Watch(ProxyTorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs every call as it is; a proxy mode by name only, as torch admits no other kind before dispatch."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)  # type: ignore[no-untyped-call]
        self.calls: list[Made] = []
        self._origins: Any = WeakTensorKeyDictionary()

    def __enter__(self) -> Any:
        return TorchDispatchMode.__enter__(self)  # type: ignore[no-untyped-call]

    def __exit__(self, *raised: Any) -> Any:
        return TorchDispatchMode.__exit__(self, *raised)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        names = [argument.name for argument in func._schema.arguments]
        arguments = tree_map(self.origin, dict(zip(names, args, strict=False)) | dict(kwargs))
        made = func(*args, **kwargs)
        outputs = made if isinstance(made, list | tuple) else (made,)
        for output in outputs:
            if isinstance(output, Tensor):
                self._origins[output] = len(self.calls)
        values = tuple(value_of(o) if isinstance(o, Tensor) and o.layout is torch.strided else None for o in outputs)
        self.calls.append(Made(func, arguments, values))
        return made

    def origin(self, value: Any) -> Any:
        """The origin of a tensor, anything else as it is."""
        return Origin(self._origins.get(value, -1), tuple(value.shape)) if isinstance(value, Tensor) else value
