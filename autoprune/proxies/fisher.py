"""Fisher information of channels, summed: Turner et al. 2020, BlockSwap, arXiv 1906.04113, equation 3."""

from __future__ import annotations

import torch
from torch import Tensor

from autoprune.proxies.base import ProxyNetwork, proxy, watching

_LAYERS = frozenset(
    {"linear", "addmm", *(f"conv{t}{d}d" for t in ("", "_transpose") for d in (1, 2, 3)), "convolution"}
)


@proxy("labels")
def fisher(network: ProxyNetwork) -> float:
    """Σ over channels c of all layers of ½ mean over examples of (Σ over positions a · ∂L/∂a)².

    a is what a convolution or a linear layer gives, L the mean loss of one batch. Layers inside a function of torch
    that does several at once (`nn.MultiheadAttention`, recurrent layers) are not seen. One forward and one backward
    pass; memory for all of a.
    """
    given: list[tuple[int, Tensor]] = []

    def keep(name: str, inputs: object, outputs: Tensor) -> None:
        if outputs.requires_grad and outputs.ndim > 1:
            given.append((1 if name.startswith("conv") else -1, outputs))

    with torch.enable_grad():
        with watching(_LAYERS, keep):
            loss = network.mean_loss()
        found = torch.autograd.grad(loss, [outputs for _, outputs in given], allow_unused=True)
    total = 0.0
    for (axis, outputs), slope in zip(given, found, strict=True):
        if slope is not None:
            product = (outputs.detach() * slope).double().movedim(axis, 1)
            by_channel = product.reshape(*product.shape[:2], -1).sum(dim=2)
            total += float(by_channel.square().mean(dim=0).sum() / 2)
    return total
