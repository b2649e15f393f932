"""Gradient signal preservation, summed: Wang et al. 2020, GraSP, arXiv 2002.07376."""

from __future__ import annotations

import torch

from autoprune.importance.derivatives import check_twice, twice_differentiated
from autoprune.proxies.base import ProxyNetwork, proxy


@proxy("labels")
def grasp(network: ProxyNetwork) -> float:
    """Σ -w · (Hg) over the weights w of layers, g the gradient and H the Hessian of the loss of one batch.

    The sign and the missing temperature are those of Abdelfattah et al. One forward and two backward passes.

    Raises:
        ConfigError: an operator of the network cannot be differentiated twice.
    """
    weights = list(network.weights.values())
    with twice_differentiated():
        loss = network.mean_loss()
        first = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
        check_twice(first)
        halved = torch.stack([(slope**2).sum() for slope in first if slope is not None]).sum() / 2
        second = torch.autograd.grad(halved, weights, allow_unused=True)
    return -sum(
        float((weight.detach() * turned).double().sum())
        for weight, turned in zip(weights, second, strict=True)
        if turned is not None
    )
