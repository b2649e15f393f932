"""Connection sensitivity, summed: Lee et al. 2019, SNIP, arXiv 1810.02340."""

from __future__ import annotations

from autoprune.proxies.base import ProxyNetwork, proxy
from autoprune.proxies.grad_norm import slopes


@proxy("labels")
def snip(network: ProxyNetwork) -> float:
    """Σ |w · ∂L/∂w| over the weights of layers, L the loss of one batch; one forward and one backward pass."""
    weights = network.weights
    return float(sum((weights[name].detach() * slope).double().abs().sum() for name, slope in slopes(network).items()))
