"""Zen-score: Lin et al. 2021, Zen-NAS, arXiv 2102.01063, algorithm 1."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from autoprune.errors import ConfigError
from autoprune.proxies.base import ProxyNetwork, for_floats, proxy, watching
from autoprune.space.cutting.masks import keep_masks
from autoprune.space.cutting.rounded import keep_bits

_NORMS = frozenset({"batch_norm", "native_batch_norm"})
_LEAST = 1e-300


@proxy("inputs")
def zen(network: ProxyNetwork, *, size: float = 0.01, repeats: int = 4) -> float:
    """Mean of ln E‖f(x) - f(x + size · ε)‖ + Σ ln σ̄ over batch norms; x and ε of standard normal noise.

    σ̄² is the mean over channels of the variance that a batch norm divides by, as it takes its statistics from the
    batch. Weights are drawn from a standard normal distribution. Two forward passes for each repeat.

    Departures: f is what the network returns, not its features before pooling, and residual connections stay: both
    would need to know the architecture. Inputs that are no floating numbers stay as they are. Masks and bits of weights
    hold for drawn ones, too.

    Args:
        network: the network.
        size: α of the paper.
        repeats: how often x and ε are drawn.

    Raises:
        ConfigError: a size that is not above 0, fewer than one repeat, or inputs without floating numbers, such as
            tokens, which cannot be changed a little.
    """
    if not (math.isfinite(size) and size > 0) or repeats < 1:
        raise ConfigError(f"zen: size must be above 0 and repeats at least 1, got {size} and {repeats}")
    inputs = pytree.tree_leaves(network.batch.inputs)
    if not any(isinstance(one, Tensor) and one.is_floating_point() for one in inputs):
        raise ConfigError(
            "zen: it changes inputs a little, and these are no floating numbers; choose another proxy, such as synflow"
        )
    found = 0.0
    with torch.no_grad():
        for weight in network.weights.values():
            weight.normal_()
        keep_masks(network.model)
        keep_bits(network.model)
        for _ in range(repeats):
            noise = for_floats(network.batch.inputs, torch.randn_like)
            moved = for_floats(noise, lambda given: given + size * torch.randn_like(given))
            first, spread = _outputs(network, noise)
            change = first - _outputs(network, moved)[0]
            found += float(change.norm(dim=1).mean().clamp_min(_LEAST).log()) + spread
    return found / repeats


def _outputs(network: ProxyNetwork, inputs: Any) -> tuple[Tensor, float]:
    """What the network returns, and Σ ln σ̄."""
    spreads: list[float] = []

    def note(name: str, given: object, outputs: Tensor) -> None:
        if isinstance(given, Tensor):
            dims = [dim for dim in range(given.ndim) if dim != 1]
            variance = given.double().var(dim=dims, unbiased=False).mean()
            spreads.append(float(variance.clamp_min(_LEAST).log()) / 2)

    with watching(_NORMS, note):
        outputs = network.outputs(inputs).double()
    return outputs, sum(spreads)
