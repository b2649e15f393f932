"""A copy of a network that lets every channel be heard at the output, so that no wrong cut goes unseen."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.space.copying import copy_network, copy_on_write
from autoprune.space.tracing.program import Example, Program, run_model
from autoprune.space.tracing.resize import operator_name


def scrambled(model: nn.Module, *, seed: int, loud: bool = True, single: bool = True) -> nn.Module:
    """A copy in evaluation mode whose constant tensors (fresh norms, zero biases) are random, so that no cut hides.

    Zeros stay small (large biases would saturate a tanh and hide what lies before it), all others come near one (a
    layer scale of 1e-6 would hide its block). Small weights grow to a spread of fan-in ** -0.5: with its own initial
    weights, a cut of most groups of an Inception v4 changes the output by less than the tolerance. Rows of a table grow
    to one: it is looked up, not summed over. Without `loud` they stay as they are, for networks whose outputs would
    overflow; without `single`, tensors of one element do, for those that a forward asks about their values.
    """
    clone = copy_network(model).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in clone.buffers():
            if tensor.is_floating_point() and _is_one_value(tensor) and (single or tensor.numel() > 1):
                _randomise(tensor, generator)
        for tensor in clone.parameters():
            if tensor.is_floating_point() and (single or tensor.numel() > 1):
                _break_repeats(tensor, generator)
        tables = {id(module.weight) for module in clone.modules() if isinstance(module, nn.Embedding)}
        for weight in clone.parameters() if loud else ():
            if weight.is_floating_point() and weight.ndim > 1 and weight.numel() > 1:
                matrix = sum(n > 1 for n in weight.shape) > 1  # gains of a weight norm are all alike, and not small
                spread = float(weight.float().std() if matrix else weight.float().square().mean().sqrt())
                heard = 1.0 if id(weight) in tables else weight[0].numel() ** -0.5
                if 0 < spread < heard:
                    weight.mul_(heard / spread)
    return clone


def _is_one_value(tensor: Tensor) -> bool:
    return tensor.numel() > 0 and bool((tensor == tensor.flatten()[0]).all())


def _break_repeats(tensor: Tensor, generator: torch.Generator) -> None:
    """Randomise a tensor of one value, and every slice of others that is the same as its neighbour or of one value."""
    if _is_one_value(tensor):
        _randomise(tensor, generator)
        return
    for dim in range(tensor.ndim):
        rows = tensor.movedim(dim, 0)
        corner = rows[(slice(None), *[slice(2)] * (rows.ndim - 1))]
        if not bool(_repeated(corner).any()):  # most tensors repeat nothing, and large ones are slow to look through
            continue
        same = _repeated(rows)
        if bool(same.any()):
            chosen = rows[same]
            rows[same] = torch.where(chosen == 0, _near_zero(chosen, generator), chosen * _near_one(chosen, generator))


def _repeated(rows: Tensor) -> Tensor:
    """(n,) True where a slice is the same as the one before, or of one value."""
    flat = rows.reshape(len(rows), -1)
    same = (flat == flat[:, :1]).all(1) if flat.shape[1] > 1 else flat.new_zeros(len(flat), dtype=torch.bool)
    same[1:] |= (flat[1:] == flat[:-1]).all(1)
    return same


def _randomise(tensor: Tensor, generator: torch.Generator) -> None:
    """Put noise in the place of one value; a single gate of zero opens by a tenth at least, or it would hide again."""
    if float(tensor.flatten()[0]) != 0:
        tensor.copy_(_near_one(tensor, generator))
    elif tensor.numel() == 1:
        tensor.copy_(0.2 * _near_one(tensor, generator))
    else:
        tensor.copy_(_near_zero(tensor, generator))


def _near_zero(like: Tensor, generator: torch.Generator) -> Tensor:
    return (0.2 * (torch.rand(like.shape, generator=generator) - 0.5)).to(like)


def _near_one(like: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.rand(like.shape, generator=generator) + 0.5).to(like)


def runs_in_training(network: nn.Module, example: Example) -> bool:
    """True where a copy of the network runs in training mode; batch norms stay in evaluation, for batches of one."""
    clone = copy_on_write(network).train()
    for module in clone.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    try:
        with torch.no_grad():
            run_model(clone, example)
    except Exception:  # noqa: BLE001 - user code may refuse training mode in any way
        return False
    return True


def silences(program: Program) -> bool:
    """True where a constant of zero multiplies something: the graph would keep a gate closed that may be opened."""

    def is_zero(value: object) -> bool:
        while isinstance(value, fx.Node) and operator_name(value) in ("lift_fresh_copy", "detach", "to", "clone"):
            value = value.args[0]
        if isinstance(value, fx.Node):
            constant = program.constants.get(value.name)
            return constant is not None and constant.is_floating_point() and not bool(constant.any())
        return isinstance(value, float) and value == 0

    products = (node for node in program.nodes if node.op == "call_function" and operator_name(node) in ("mul", "mul_"))
    return any(is_zero(value) for node in products for value in node.args)
