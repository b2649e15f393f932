"""Zen-score: Lin et al. 2021, Zen-NAS, arXiv 2102.01063, algorithm 1."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.proxies.base import ProxyNetwork, for_floats, proxy, watching

_NORMS = frozenset({"batch_norm", "native_batch_norm"})
_LEAST = 1e-300


@proxy("inputs")
def zen(network: ProxyNetwork, *, size: float = 0.01, repeats: int = 4) -> float:
    """Mean of ln E‖f(x) - f(x + size · ε)‖ + Σ ln σ̄ over batch norms; x and ε of standard normal noise.

    σ̄² is the mean over channels of the variance that a batch norm divides by, as it takes its statistics from the
    batch. Weights are drawn from a standard normal distribution. Two forward passes for each repeat.

    Departures: f is what the network returns, not its features before pooling, and residual connections stay: both
    would need to know the architecture. Inputs that are no floating numbers stay as they are.

    Args:
        network: the network.
        size: α of the paper.
        repeats: how often x and ε are drawn.

    Raises:
        ConfigError: a size that is not above 0, or fewer than one repeat.
    """
    if not (math.isfinite(size) and size > 0) or repeats < 1:
        raise ConfigError(f"zen: size must be above 0 and repeats at least 1, got {size} and {repeats}")
    found = 0.0
    with torch.no_grad():
        for weight in network.weights.values():
            weight.normal_()
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
