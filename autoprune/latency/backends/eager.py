"""PyTorch as it is, operator by operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from autoprune.cost.latency.device_profile import Conditions
from autoprune.cost.latency.kernels import DeviceKernel, Operand
from autoprune.errors import EvaluationError
from autoprune.latency.backends.base import Backend, Runner

_WEIGHTS = ("weight", "bias", "running_mean", "running_var")
"""Names under which ATen operators take parameters and buffers; all other tensors are activations."""


@final
class Eager(Backend):
    """Runs modules; one kernel is one call of an ATen operator."""

    def ready(
        self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], conditions: Conditions
    ) -> Runner:
        """The network itself, its norms folded where the conditions ask for that."""
        runs = fold_batch_norm(network) if conditions.fold_batch_norm else network
        return lambda: runs(*args, **kwargs)

    def kernel(self, kernel: DeviceKernel, shapes: Sequence[tuple[int, ...]], conditions: Conditions) -> Runner | None:
        """The operator on tensors of these shapes; None for a norm that is folded."""
        if conditions.fold_batch_norm and kernel.operator == "batch_norm":
            return None
        overload = _overload(kernel)
        if overload is None:
            return None
        try:
            tensors = [_filled(o, shape, conditions) for o, shape in zip(kernel.operands, shapes, strict=True)]
            args, kwargs = _arguments(kernel, overload, tensors, shapes)
            with torch.inference_mode():
                overload(*args, **kwargs)
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError, ZeroDivisionError):
            return None  # settings that follow the widths in a way of their own
        return lambda: overload(*args, **kwargs)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Return the network with its batch norms folded into the convolutions before them.

    Raises:
        EvaluationError: `torch.fx` cannot follow its forward.
    """
    from torch.fx.experimental.optimization import fuse

    try:
        folded: nn.Module = fuse(network)
    except Exception as error:
        raise EvaluationError(
            f"the batch norms of this {type(network).__name__} cannot be folded ({type(error).__name__}: "
            f"{str(error).partition(chr(10))[0]}); measure without fold_batch_norm, or with the backend onnxruntime"
        ) from error
    return folded


def _overload(kernel: DeviceKernel) -> Any:
    """The overload whose arguments are these settings and tensors; None where there is none."""
    packet = getattr(torch.ops.aten, kernel.operator, None)
    given = {name for name, _ in kernel.settings}
    for name in packet.overloads() if packet is not None else ():
        overload = getattr(packet, name)
        arguments = {a.name: str(a.type) for a in overload._schema.arguments}
        tensors = [kind for key, kind in arguments.items() if key not in given]
        several = any("List" in kind for kind in tensors)
        fits = (len(tensors) == 1) if several else (len(tensors) == len(kernel.operands))
        if fits and given <= arguments.keys() and all("Tensor" in kind for kind in tensors):
            return overload
    return None


def _arguments(
    kernel: DeviceKernel, overload: Any, tensors: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]
) -> tuple[list[Any], dict[str, Any]]:
    """Settings and tensors as the operator's schema takes them, by position and by name."""
    settings = dict(kernel.settings)
    if settings.get("groups") in ("every channel", "of the shapes"):
        settings["groups"] = _groups(kernel, shapes)
    if "normalized_shape" in settings:
        settings["normalized_shape"] = list(shapes[0][-settings["normalized_shape"] :])
    left = list(zip(kernel.operands, tensors, strict=True))
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for argument in overload._schema.arguments:
        if argument.name in settings:
            value = _setting(settings[argument.name])
        elif "List" in str(argument.type):
            value = [tensor for _, tensor in left]
        else:
            wanted = [pair for pair in left if (pair[0].role == "weight") == (argument.name in _WEIGHTS)] or left
            value = wanted[0][1]
            left = [pair for pair in left if pair[1] is not value]
        if argument.kwarg_only:
            kwargs[argument.name] = value
        else:
            args.append(value)
    return args, kwargs


def _groups(kernel: DeviceKernel, shapes: Sequence[tuple[int, ...]]) -> int:
    weight = next(shape for o, shape in zip(kernel.operands, shapes, strict=True) if o.role == "weight")
    channels = shapes[0][1]
    if ("groups", "every channel") in kernel.settings:
        return channels
    if "transpose" in kernel.operator or channels % weight[1]:
        raise ValueError("the number of groups does not follow from the shapes")
    return channels // weight[1]


def _setting(value: Any) -> Any:
    """A value as the operator takes it: names of dtypes and devices were texts."""
    if isinstance(value, str) and value.startswith("torch."):
        return getattr(torch, value.removeprefix("torch."))
    return list(value) if isinstance(value, tuple) else value


def _filled(operand: Operand, shape: tuple[int, ...], conditions: Conditions) -> Tensor:
    """Ones, which are fit for variances, too."""
    dtype = getattr(torch, operand.dtype)
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype, device=conditions.device)
    tensor = torch.ones(shape, dtype=getattr(torch, conditions.dtype), device=conditions.device)
    return tensor.to(memory_format=torch.channels_last) if conditions.channels_last and tensor.ndim == 4 else tensor
