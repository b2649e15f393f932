"""Batch norms on the way of a network that is refitted layer by layer.

A fit gives less variance than there was. A norm that measured its statistics anew would blow that up again, and one
with the old statistics would be wrong as soon as they are measured, or trained on. So a norm behind a fit gets the
statistics of what it reads now, and the scale and shift with which it gives what it would give with the old ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.space.cutting.slicing import tensor_of
from autoprune.statistics.moments import Norm

_FUNCTION = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
_OPERATOR = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
_DEAD = 1e-3
"""Scales below this share of the largest one of their norm give next to nothing, and are not divided by."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Of the norm behind a consumer in the dense network, (channels,) each.

    Attributes:
        mean: its running mean.
        deviation: square root of its running variance plus eps.
        scale: its weight; ones where it has none.
        shift: its bias; zeros where it has none.
    """

    mean: Tensor
    deviation: Tensor
    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, model: nn.Module, norm: Norm) -> Fitted:
        """Read from the dense network."""
        mean = tensor_of(model, norm.mean).detach().double()
        deviation = (tensor_of(model, norm.variance).detach().double() + norm.eps).sqrt()
        scale = torch.ones_like(mean) if norm.weight is None else tensor_of(model, norm.weight).detach().double()
        shift = torch.zeros_like(mean) if norm.bias is None else tensor_of(model, norm.bias).detach().double()
        return cls(mean, deviation, scale, shift)

    def kept(self, indices: Tensor | None) -> Fitted:
        """Of the channels that survive."""
        if indices is None:
            return self
        at = indices.to(self.mean.device)
        return Fitted(self.mean[at], self.deviation[at], self.scale[at], self.shift[at])

    @property
    def inverse(self) -> Tensor:
        """What a difference behind the norm is in front of it; 0 for channels that give next to nothing."""
        alive = self.scale.abs() > _DEAD * self.scale.abs().max()
        return torch.where(alive, self.deviation / self.scale, torch.zeros_like(self.scale))


@final
class NormsBehind:
    """Sets norms right before they run.

    Args:
        network: the cut one.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._expected: dict[int, tuple[Norm, Fitted, Tensor]] = {}

    def expect(self, norm: Norm, dense: Fitted, shift: Tensor) -> None:
        """A consumer was refitted.

        Args:
            norm: behind it.
            dense: what it was, of the channels that survive.
            shift: (channels,) what the consumer's outputs still lack on average.
        """
        self._expected[id(tensor_of(self._network, norm.mean))] = norm, dense, shift

    def before(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A function of torch is about to run."""
        if getattr(func, "__name__", "").partition(".")[0] != "batch_norm":
            return
        given = {**dict(zip(_FUNCTION if func is F.batch_norm else _OPERATOR, args, strict=False)), **kwargs}
        mean, variance, inputs = given.get("running_mean"), given.get("running_var"), given["input"]
        if mean is None or variance is None or inputs.numel() < 2 * inputs.shape[1]:
            return
        values = inputs.double().transpose(0, 1).flatten(1)
        now = torch.var_mean(values, dim=1)
        if not all(bool(v.isfinite().all()) for v in now):
            return
        known = self._expected.pop(id(mean), None)
        if known is not None and not self._set(*known, now[1], now[0]):
            return
        mean.copy_(now[1])
        variance.copy_(now[0])

    def _set(self, norm: Norm, dense: Fitted, shift: Tensor, mean: Tensor, variance: Tensor) -> bool:
        """Set scale and shift for new statistics; without them, set the old statistics and return False."""
        if norm.weight is None or norm.bias is None:
            tensor_of(self._network, norm.mean).copy_(dense.mean - shift)
            tensor_of(self._network, norm.variance).copy_(dense.deviation.square() - norm.eps)
            return False
        gain = dense.scale / dense.deviation
        tensor_of(self._network, norm.weight).copy_(gain * (variance + norm.eps).sqrt())
        tensor_of(self._network, norm.bias).copy_(dense.shift + gain * (mean - dense.mean + shift))
        return True
