"""A network with the sizes of its weights and without its nonlinear functions: what importance flows back through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from autoprune.importance.reads import CALLS, KEYWORDS, OPENED, Read, opened

_IDENTITY = {
    "celu",
    "clamp",
    "clamp_max",
    "clamp_min",
    "elu",
    "gelu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "log_sigmoid",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "rrelu",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
}
"""Functions of single numbers whose slope is at most about 1."""

_NORMS = {"layer_norm": 2, "group_norm": 2, "rms_norm": 2, "instance_norm": 3, "native_layer_norm": 2}
"""Norms over channels or positions -> where their weight stands."""


def make_positive(model: nn.Module) -> None:
    """Give a network the sizes of its weights, no biases, and batch norms that only scale; in place."""
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name.rpartition(".")[2] in ("bias", "running_mean", "in_proj_bias"):
                tensor.zero_()
            elif tensor.is_floating_point():
                tensor.abs_()


def ones_like_inputs(inputs: Any, number: int) -> Any:
    """The first example, every number of it 1; what is no floating tensor stays."""

    def one(value: Tensor) -> Tensor:
        value = value[:1] if value.ndim and value.shape[0] == number else value
        return torch.ones_like(value, dtype=torch.float64) if value.is_floating_point() else value

    return pytree.tree_map_only(Tensor, one, inputs)


@final
@dataclass(frozen=True, slots=True, eq=False)
class WeightedCall:
    """A convolution or a product with a weight.

    Attributes:
        inputs: what it reads.
        dim: the axis of its features.
        leaf: a zero that was added to its outputs; None where none were.
    """

    inputs: Tensor
    dim: int
    leaf: Tensor | None

    def features(self, examples: int) -> Tensor | None:
        """(examples, F) means over positions; None where examples cannot be told apart."""
        slots = torch.arange(self.inputs.shape[self.dim], device=self.inputs.device)
        maps = Read("", self.inputs, self.dim, slots, examples).maps()
        return None if maps is None else maps.double().mean(dim=(2, 3))


@final
class WeightedCalls(TorchFunctionMode):
    """Inside, notes all calls with a weight in their order.

    Args:
        positive: replace nonlinear functions by identities and norms by their scales, and add leaves to outputs.
    """

    def __init__(self, *, positive: bool) -> None:
        super().__init__()
        self._positive = positive
        self.calls: list[WeightedCall] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        given = dict(kwargs or {})
        name = getattr(func, "__name__", "").partition(".")[0]
        if name in OPENED:
            with self:
                return opened(func)(*args, **given)
        if name in CALLS:
            return self._weighted(name, func, args, given)
        if self._positive and name.rstrip("_") in _IDENTITY and args and isinstance(args[0], Tensor):
            return args[0]
        if self._positive and name in _NORMS and args and isinstance(args[0], Tensor):
            scaled = _scaled(name, args, given)
            return (scaled, None, None) if name.startswith("native") else scaled
        return func(*args, **given)

    def _weighted(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inputs, weight = (
            args[place] if place < len(args) else kwargs.get(keyword)
            for place, keyword in zip(CALLS[name], KEYWORDS, strict=True)
        )
        made = func(*args, **kwargs)
        product = name in ("linear", "matmul", "mm", "addmm")
        if not isinstance(inputs, Tensor) or not isinstance(weight, Tensor) or (product and weight.ndim != 2):
            return made
        leaf = torch.zeros((), dtype=made.dtype, requires_grad=True) if self._positive else None
        self.calls.append(WeightedCall(inputs, inputs.ndim - 1 - (0 if product else weight.ndim - 2), leaf))
        return made if leaf is None else made + leaf.to(made.device)


def last_calls(calls: list[WeightedCall]) -> list[int]:
    """Indices of the calls whose outputs no other call reads."""
    leaves = [call.leaf for call in calls if call.leaf is not None]
    read = torch.stack([call.inputs.sum() for call in calls if call.inputs.requires_grad]).sum()
    found = torch.autograd.grad(read, leaves, allow_unused=True, retain_graph=True)
    return [index for index, slope in enumerate(found) if slope is None]


def _scaled(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    inputs: Tensor = args[0]
    place = _NORMS[name]
    weight = args[place] if place < len(args) else kwargs.get("weight")
    if weight is None:
        return inputs
    if name in ("group_norm", "instance_norm"):
        weight = weight.reshape(-1, *[1] * (inputs.ndim - 2))
    scaled: Tensor = inputs * weight
    return scaled
