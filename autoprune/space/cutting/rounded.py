"""Weights rounded to a few bits: symmetric, a scale for each output, and kept so while a network trains.

A weight w becomes s · clip(round(w / s), -q, q) with q = 2^(bits - 1) - 1 (Krishnamoorthi 2018, arXiv 1806.08342,
section 2.2). The scale s of an output is that of 13 shares of max|w| / q whose squared error is the least: with few
bits it pays to clip, as in CLIP-Q (Tung & Mori, CVPR 2018, section 3.1). Scales keep 16 significant bits, so that
products with whole numbers of up to 8 bits are exact in float32, and what is rounded stays as it is to the bit.

A layer knows its bits by an attribute beside its weights (`weight_rounding`, `weight`), which is in no state dict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from autoprune.space.bits import LayerBits

SHARES = tuple(share / 16 for share in range(16, 3, -1))
"""Of the scale that clips nothing, the largest first: of equal ones it is taken."""

_SUFFIX = "_rounding"
_LOW_BITS = 8  # of the 24 significant ones of float32


@final
@dataclass(slots=True)
class _Rounding:
    """How the weights of a layer are rounded.

    Attributes:
        bits: of each.
        outputs: axis with a scale for each index.
        exact: the weights before they were rounded; None where nobody knows.
    """

    bits: int
    outputs: int
    exact: Tensor | None = None


def rounded(weight: Tensor, bits: int, outputs: int = 0) -> Tensor:
    """The weights, rounded.

    Args:
        weight: float32 or float64.
        bits: 2 to 8.
        outputs: axis with a scale for each index.
    """
    laid = weight.detach().movedim(outputs, 0).flatten(1)
    levels = 2 ** (bits - 1) - 1
    largest = laid.abs().amax(dim=1, keepdim=True) / levels
    best, error = torch.zeros_like(laid), laid.square().sum(dim=1, keepdim=True)
    for share in SHARES:
        scale = _short(share * largest)
        made = torch.where(scale > 0, (laid / scale).round_().clamp_(-levels, levels) * scale, 0.0)
        now = (made - laid).square().sum(dim=1, keepdim=True)
        best, error = torch.where(now < error, made, best), torch.minimum(now, error)
    shape = weight.movedim(outputs, 0).shape
    return best.reshape(shape).movedim(0, outputs).contiguous()


def _short(scale: Tensor) -> Tensor:
    """Numbers of 16 significant bits, at most so large; those too small for float32 are 0."""
    bits = scale.float().contiguous().view(torch.int32) >> _LOW_BITS << _LOW_BITS
    return bits.view(torch.float32).to(scale.dtype)


def put_bits(network: nn.Module, layer: LayerBits, bits: int | None) -> None:
    """Round the weights of a layer; they stay so in trainings. None: they are as they are.

    Args:
        network: changed in place.
        layer: which.
        bits: of each weight.
    """
    path, _, attribute = layer.tensor.rpartition(".")
    module = network.get_submodule(path)
    module.__dict__.pop(f"{attribute}{_SUFFIX}", None)
    if bits is not None:
        object.__setattr__(module, f"{attribute}{_SUFFIX}", _Rounding(bits, layer.outputs))
        _round(getattr(module, attribute), getattr(module, f"{attribute}{_SUFFIX}"))


def keep_bits(network: nn.Module) -> None:
    """Round weights that have bits, whatever has been done to them; a training goes on from what they were before."""
    for _, weight, rounding in _roundings(network):
        known = rounding.exact
        if known is None or not torch.equal(_rounded(known.to(weight.device), rounding), weight.detach()):
            _round(weight, rounding)


def bits_of(network: nn.Module) -> dict[str, int]:
    """Name of weights that are rounded -> bits of each."""
    return {name: rounding.bits for name, _, rounding in _roundings(network)}


@final
class RoundedTraining:
    """Trains weights that are rounded: gradients are those at the rounded weights, steps are made from the exact ones.

    That is the straight-through estimator (Bengio et al. 2013, arXiv 1308.3432; Courbariaux et al. 2015, BinaryConnect,
    algorithm 1). No weight is beyond its scale, so that every gradient goes through.

    Args:
        network: with any number of layers that have bits.
    """

    def __init__(self, network: nn.Module) -> None:
        keep_bits(network)
        self._weights = [
            (
                weight,
                rounding,
                (weight if rounding.exact is None else rounding.exact).detach().to(weight.device).clone(),
            )
            for _, weight, rounding in _roundings(network)
        ]
        for _, rounding, _ in self._weights:
            rounding.exact = None  # once it trains they are here

    @torch.no_grad()
    def put_exact(self) -> None:
        """Before a step: the network has the exact weights."""
        for weight, _, exact in self._weights:
            weight.copy_(exact)

    @torch.no_grad()
    def put_rounded(self) -> None:
        """After a step: what the network has is exact, and it gets the rounded weights."""
        for weight, rounding, exact in self._weights:
            exact.copy_(weight)
            weight.copy_(_rounded(weight, rounding))

    @torch.no_grad()
    def round_only(self) -> None:
        """Round what the network has, for the moment: steps go on from where they were."""
        for weight, rounding, _ in self._weights:
            weight.copy_(_rounded(weight, rounding))

    def state_dict(self) -> dict[str, Any]:
        """The exact weights, in the order of the layers."""
        return {str(number): exact for number, (_, _, exact) in enumerate(self._weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        for number, (_, _, exact) in enumerate(self._weights):
            exact.copy_(state[str(number)])


def _rounded(weight: Tensor, rounding: _Rounding) -> Tensor:
    return rounded(weight, rounding.bits, rounding.outputs)


@torch.no_grad()
def _round(weight: Tensor, rounding: _Rounding) -> None:
    rounding.exact = weight.detach().clone()
    weight.copy_(_rounded(weight, rounding))


def _roundings(network: nn.Module) -> Iterator[tuple[str, Tensor, _Rounding]]:
    for path, module in network.named_modules():
        for name, rounding in module.__dict__.items():
            if isinstance(rounding, _Rounding):
                attribute = name.removesuffix(_SUFFIX)
                yield f"{path}.{attribute}" if path else attribute, getattr(module, attribute), rounding
