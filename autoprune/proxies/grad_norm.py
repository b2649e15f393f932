"""The norm of the gradient: Abdelfattah et al. 2021, Zero-Cost Proxies for Lightweight NAS, arXiv 2101.08134."""

from __future__ import annotations

import torch
from torch import Tensor

from autoprune.proxies.base import ProxyNetwork, proxy


@proxy("labels")
def grad_norm(network: ProxyNetwork) -> float:
    """Σ ‖∂L/∂w‖₂ over the weights w of layers, L the loss of one batch; one forward and one backward pass."""
    return float(sum(slope.double().norm() for slope in slopes(network).values()))


def slopes(network: ProxyNetwork) -> dict[str, Tensor]:
    """Name -> gradient of the mean loss by each weight; zeros by one that plays no part."""
    weights = network.weights
    with torch.enable_grad():
        found = torch.autograd.grad(network.mean_loss(), list(weights.values()), allow_unused=True)
    return {
        name: torch.zeros_like(weight) if slope is None else slope
        for (name, weight), slope in zip(weights.items(), found, strict=True)
    }
