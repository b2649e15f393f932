"""Whether a model is sound: its numbers are numbers, and nothing of it has changed that was only to be read."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Iterator, Mapping
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from autoprune.errors import AutopruneError, ConfigError, RunError


def check_finite(
    model: nn.Module,
    *,
    what: str = "the model",
    kind: type[AutopruneError] = ConfigError,
    then: str = "load weights that are whole, or train it anew",
) -> None:
    """Check that parameters and running statistics are finite numbers, and variances not below 0.

    Minus infinity is allowed where nothing trains, as in masks of attention. Other buffers may hold anything: a cache
    that is not filled yet, or the range of an observer. Tensors without values (meta, lazy) are passed over.

    Args:
        model: only read.
        what: the model, as the start of a sentence.
        kind: the error to raise.
        then: what to do about it.

    Raises:
        AutopruneError: `kind`; names the first tensor that is not, and its first such value.
    """
    judged = list(_judged(model))
    suspects = [_suspect(tensor, variance) for _, tensor, variance in judged]
    if not suspects:
        return
    home = suspects[0].device
    flags = torch.stack([flag.to(home, non_blocking=True) for flag in suspects]).tolist()  # waited for once
    for (name, tensor, variance), flag in zip(judged, flags, strict=True):
        if flag and bool((wrong := _wrong(tensor, variance)).any()):
            first = int(wrong.reshape(-1).nonzero()[0])
            place = tuple(map(int, np.unravel_index(first, tensor.shape)))
            raise kind(
                f"{what} holds values that are no usable numbers: {int(wrong.sum())} of {tensor.numel()} in {name!r}, "
                f"the first at {place} is {tensor.detach().reshape(-1)[first].item()}; {then}"
            )


@final
class Snapshot:
    """What a model holds now: parameters, buffers, training flags, what trains, how many hooks.

    Args:
        model: only read; not copied.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._before = model, _contents(model)

    def changed(self) -> str | None:
        """The first thing that is not as it was, in words; None where all is."""
        now = _contents(self._model)
        return next((name for name in (*self._before, *now) if self._before.get(name) != now.get(name)), None)

    def check(self, what: str, then: str) -> None:
        """Check that nothing has changed.

        Args:
            what: who may have changed it, and which model, as the start of a sentence that goes on with a name.
            then: what to do about it.

        Raises:
            RunError: something has; names the first one.
        """
        if (name := self.changed()) is not None:
            raise RunError(f"{what}: {name} is not as it was; {then}")


def _judged(model: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    """(name, tensor, whether it is a variance) of what must be finite."""
    for name, parameter in model.named_parameters():
        if _has_values(parameter):
            yield name, parameter, False
    for path, module in model.named_modules():
        if isinstance(module, _NormBase):
            for kind in ("running_mean", "running_var"):
                tensor = getattr(module, kind)
                if isinstance(tensor, Tensor) and _has_values(tensor):
                    yield f"{path}.{kind}".lstrip("."), tensor, kind == "running_var"


def _has_values(tensor: Tensor) -> bool:
    real = tensor.is_floating_point() or tensor.is_complex()
    return not is_lazy(tensor) and not tensor.is_meta and real and tensor.layout is torch.strided and tensor.numel() > 0


def _suspect(tensor: Tensor, variance: bool) -> Tensor:
    """False only where `_wrong` is False everywhere; a sum is many times faster than a look at each value."""
    values = tensor.detach()
    flag = ~(values if values.itemsize > 1 else values.float()).sum().isfinite()
    return flag | (values.min() < 0) if variance else flag


def _wrong(tensor: Tensor, variance: bool) -> Tensor:
    """True where a value is no usable number."""
    values = tensor.detach()
    if values.itemsize == 1:  # torch compares no numbers of 8 bits
        values = values.float()
    wrong = ~values.isfinite()
    if variance:
        return wrong | (values < 0)
    if isinstance(tensor, nn.Parameter) and not tensor.requires_grad and not values.is_complex():
        return wrong & (values != -torch.inf)
    return wrong


def _contents(model: nn.Module) -> Mapping[str, Hashable]:
    """What a model holds, by names for messages; tensors as checksums."""
    found: dict[str, Hashable] = {}
    for name, parameter in model.named_parameters():
        found[f"parameter {name!r}"] = _checksum(parameter)
        found[f"requires_grad of {name!r}"] = parameter.requires_grad
    for name, buffer in model.named_buffers():
        found[f"buffer {name!r}"] = _checksum(buffer)
    for path, module in model.named_modules():
        name = repr(path) if path else "the model itself"
        found[f"the training flag of {name}"] = module.training
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
        found[f"the hooks of {name}"] = tuple(map(len, hooks))
    return found


def _checksum(tensor: Tensor) -> Hashable:
    about = (tensor.dtype, tuple(tensor.shape), tensor.device)
    if is_lazy(tensor) or tensor.is_meta or tensor.layout is not torch.strided:
        return about
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return (*about, zlib.crc32(values.numpy().data))
