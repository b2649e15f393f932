"""A copy of a network that lets every channel be heard at the output, so that no wrong cut goes unseen."""

from __future__ import annotations

import copy

import torch
from torch import nn


def scrambled(model: nn.Module, *, seed: int, loud: bool = True) -> nn.Module:
    """A copy in evaluation mode whose constant tensors (fresh norms, zero biases) are random, so that no cut hides.

    Zeros stay small (large biases would saturate a tanh and hide what lies before it), all others come near one (a
    layer scale of 1e-6 would hide its block). Small weights grow to a spread of fan-in ** -0.5: with its own initial
    weights, a cut of most groups of an Inception v4 changes the output by less than the tolerance. Without `loud` they
    stay as they are, for networks whose outputs would overflow.
    """
    clone = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*clone.parameters(), *clone.buffers()):
            if tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
                value = float(tensor.flatten()[0])
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(0.2 * (noise - 0.5) if value == 0 else noise + 0.5)
        for weight in clone.parameters() if loud else ():
            if weight.is_floating_point() and weight.ndim > 1:
                spread, heard = float(weight.float().std()), weight[0].numel() ** -0.5
                if 0 < spread < heard:
                    weight.mul_(heard / spread)
    return clone
