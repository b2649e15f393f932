"""Batch norms on the way of a network that is refitted layer by layer.

A fit gives less variance than there was. A norm that measured its statistics anew would blow that up again, and one
with the old statistics would be wrong as soon as they are measured, or trained on. So a norm gets the statistics of
what it reads now, and the scale and shift with which it does what is wanted:

* right behind a refitted consumer, what it did in the dense network: the consumer was fitted to what it read there;
* anywhere else (behind a sum or a concatenation), it is a layer with one input for each output, and is refitted as one:
  its outputs come as near to the dense ones as a scale and a shift can bring them. Where it reads what it read in the
  dense network, that is what it did there.

Norms that are called several times, use statistics of the batch, or have no scale and shift stay as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn

from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import tensor_of
from autoprune.statistics.norms import Norm, norm_arguments
from autoprune.statistics.rows import map_rows

_DEAD = 1e-3
"""Scales below this share of the largest one of their norm give next to nothing, and are not divided by."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class DenseNorm:
    """A norm in the dense network, (channels,) each: it gives `gain` x + `offset`.

    Attributes:
        gain: its scale over the square root of its running variance plus eps.
        offset: its shift, less what it takes away.
        alive: its scale is not next to nothing.
    """

    gain: Tensor
    offset: Tensor
    alive: Tensor

    @classmethod
    def of(cls, model: nn.Module, norm: Norm) -> DenseNorm:
        """Read from the network."""
        mean, variance = (tensor_of(model, name).detach().double() for name in (norm.mean, norm.variance))
        scale = torch.ones_like(mean) if norm.weight is None else tensor_of(model, norm.weight).detach().double()
        shift = torch.zeros_like(mean) if norm.bias is None else tensor_of(model, norm.bias).detach().double()
        gain = scale / (variance + norm.eps).sqrt()
        return cls(gain, shift - gain * mean, scale.abs() > _DEAD * scale.abs().max())

    def kept(self, indices: Tensor | None) -> DenseNorm:
        """Of the channels that survive."""
        if indices is None:
            return self
        at = indices.to(self.gain.device)
        return DenseNorm(self.gain[at], self.offset[at], self.alive[at])

    @property
    def inverse(self) -> Tensor:
        """What a difference behind the norm is in front of it; 0 for channels that give next to nothing."""
        return torch.where(self.alive, 1 / self.gain, torch.zeros_like(self.gain))


class _Targets(Protocol):
    norms: dict[str, Tensor]

    def norm_positions(self, channels: int) -> int: ...


@final
class NormsOnTheWay:
    """Sets norms right before they run.

    Args:
        cut: its network is changed.
        targets: what norms gave in the dense network.
    """

    def __init__(self, cut: Cut, targets: _Targets) -> None:
        self._cut, self._targets = cut, targets
        network = cut.network
        tensors = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
        self._names = {id(tensor): name for name, tensor in tensors}
        self._expected: dict[str, tuple[Tensor, Tensor]] = {}

    def expect(self, norm: Norm, dense: DenseNorm, lack: Tensor) -> None:
        """A consumer was refitted.

        Args:
            norm: behind it.
            dense: what it was in the dense network, of the channels that survive.
            lack: (channels,) what the consumer's outputs still lack on average.
        """
        if norm.weight is None or norm.bias is None:  # its statistics are all that it has
            mean = tensor_of(self._cut.network, norm.mean)
            mean.sub_(lack.to(mean))
        else:
            self._expected[norm.mean] = dense.gain, dense.offset + dense.gain * lack

    def before(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A function of torch is about to run."""
        given = norm_arguments(func, args, kwargs)
        if given is None or given["training"]:
            return
        inputs, mean, variance = given["input"], given["running_mean"], given["running_var"]
        scale, shift = given.get("weight"), given.get("bias")
        name = self._names.get(id(mean))
        if name is None or scale is None or shift is None or inputs.numel() < 2 * inputs.shape[1]:
            return
        if not {id(scale), id(shift)} <= self._names.keys():  # computed
            return
        now = torch.var_mean(inputs, dim=[d for d in range(inputs.ndim) if d != 1])
        affine = self._expected.pop(name, None)
        if affine is None:
            affine = self._fitted(name, inputs, scale / (variance + given.get("eps", 1e-5)).sqrt())
        if affine is None or not all(bool(v.isfinite().all()) for v in (*now, *affine)):
            return
        gain, offset = affine
        scale.copy_(gain * (now[0] + given.get("eps", 1e-5)).sqrt())
        shift.copy_(offset + gain * now[1])
        mean.copy_(now[1])
        variance.copy_(now[0])

    def _fitted(self, name: str, inputs: Tensor, gain: Tensor) -> tuple[Tensor, Tensor] | None:
        """(channels,) gain and offset for which the norm gives most of what it gave, by least squares."""
        wanted, kept = self._targets.norms.get(name), self._cut.kept[name][0]
        if wanted is None:
            return None
        wanted = wanted if kept is None else wanted.index_select(1, kept.to(wanted.device))
        x = map_rows(name, inputs, positions=self._targets.norm_positions(inputs.shape[1])).double()
        if x.shape != wanted.shape:
            return None
        x_mean, wanted_mean = x.mean(dim=0), wanted.double().mean(dim=0)
        power = (x - x_mean).square().mean(dim=0)
        ridge = torch.where(power > 0, power / len(x), torch.ones_like(power))
        cross = ((x - x_mean) * (wanted.double() - wanted_mean)).mean(dim=0)
        fitted = (cross + ridge * gain) / (power + ridge)
        return fitted, wanted_mean - fitted * x_mean
