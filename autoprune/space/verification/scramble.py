"""A copy of a network that lets every channel be heard at the output, so that no wrong cut goes unseen."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from autoprune.space.tracing.program import Example, run_model

if TYPE_CHECKING:
    from autoprune.space.tracing.trace import Traced


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


def telling(model: nn.Module, traced: Traced) -> Example:
    """The example with other values where an input is constant: equal tokens would hide all of attention.

    Floats become noise, indices of a table random rows of it; the example stays as it is where the model refuses that.
    """
    program = traced.program
    rows = {
        node.args[1].name: int(node.args[0].meta["shapes"][0][0])  # type: ignore[union-attr]
        for node in program.nodes
        if str(node.target).startswith("aten.embedding") and isinstance(node.args[1], torch.fx.Node)
    }
    leaves, structure = pytree.tree_flatten(traced.example)
    generator = torch.Generator().manual_seed(0)

    def other(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.numel() < 2 or bool((value != value.flatten()[0]).any()):
            return value
        if value.is_floating_point():
            return torch.randn(value.shape, generator=generator).to(value)
        return torch.randint(rows[name], value.shape, generator=generator).to(value) if name in rows else value

    varied: Example = pytree.tree_unflatten(
        [other(n, v) for n, v in zip(program.inputs, leaves, strict=True)], structure
    )
    try:
        with torch.no_grad():
            run_model(model, varied)
    except Exception:  # noqa: BLE001 - a constant input may mean something, a mask or a length
        return traced.example
    return varied


def runs_in_training(network: nn.Module, example: Example) -> bool:
    """True where a copy of the network runs in training mode; batch norms stay in evaluation, for batches of one."""
    clone = copy.deepcopy(network).train()
    for module in clone.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    try:
        with torch.no_grad():
            run_model(clone, example)
    except Exception:  # noqa: BLE001 - user code may refuse training mode in any way
        return False
    return True
