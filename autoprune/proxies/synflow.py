"""Synaptic flow: Tanaka et al. 2020, arXiv 2006.05467, equation 2; summed as a proxy by Abdelfattah et al. 2021."""

from __future__ import annotations

import torch

from autoprune.data.batch import Batch
from autoprune.proxies.base import ProxyNetwork, for_floats, proxy
from autoprune.space.copying import copy_network


@proxy("network")
def synflow(network: ProxyNetwork) -> float:
    """The logarithm of Σ |w · ∂R/∂|w|| over the weights of layers.

    R is the sum of the outputs for an input of ones, with |w| for every weight. Batch norms are switched off, as in the
    paper's code: with fresh weights and running statistics they pass their input on. Norms that have no such statistics
    (layer, group) subtract means, so that slopes of both signs occur; as in Abdelfattah et al.'s code, absolute
    products are summed, since products cancel out in front of such a norm. The logarithm changes no order and keeps
    deep networks finite. In double precision, one forward and one backward pass of one example; inputs that are no
    floating numbers (tokens) stay as they are.
    """
    model = copy_network(network.model).eval().double()
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.abs_()
    ones = for_floats(network.batch.first(1).inputs, lambda t: torch.ones_like(t, dtype=torch.float64))
    own = ProxyNetwork(model, Batch(ones))
    weights = list(own.weights.values())
    with torch.enable_grad():
        found = torch.autograd.grad(own.outputs(ones).sum(), weights, allow_unused=True)
    total = sum(
        ((w.detach() * s).abs().sum() for w, s in zip(weights, found, strict=True) if s is not None), torch.zeros(())
    )
    return float(total.double().clamp_min(torch.finfo(torch.float64).tiny).log())
