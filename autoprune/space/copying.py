"""Copies of networks, also of those that keep what a hook computes before each call.

`torch.nn.utils.weight_norm`, `spectral_norm` and `prune`, and hooks written after them, keep parameters under other
names (`weight_g` and `weight_v`, `weight_orig`) and put the computed `weight` beside them as a plain attribute, which
remembers how it was computed and so forbids `copy.deepcopy`. The next call computes it anew.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

Network = TypeVar("Network", bound=nn.Module)

_BY_HOOK: Mapping[type, Any] = {
    WeightNorm: lambda hook, module: (hook.name, hook.compute_weight(module)),
    SpectralNorm: lambda hook, module: (hook.name, hook.compute_weight(module, do_power_iteration=False)),
    BasePruningMethod: lambda hook, module: (hook._tensor_name, hook.apply_mask(module)),
}


def copy_network(model: Network) -> Network:
    """A copy that shares nothing with the model, as `copy.deepcopy` makes it."""
    return copy.deepcopy(model, _computed_copies(model))


def copy_on_write(model: Network) -> Network:
    """A copy as `copy_network` makes it, whose tensors take memory of their own once somebody writes into them.

    For networks of one's own: of what belongs to the caller, not even the storage is changed.
    """
    tensors: dict[int, Any] = {}
    for parameter in model.parameters():
        if type(parameter) is nn.Parameter and _is_plain(parameter):
            tensors[id(parameter)] = nn.Parameter(parameter.detach()._lazy_clone(), parameter.requires_grad)
    for buffer in model.buffers():
        if type(buffer) is Tensor and _is_plain(buffer):
            tensors[id(buffer)] = buffer._lazy_clone()
    return copy.deepcopy(model, tensors | _computed_copies(model))


def _is_plain(tensor: Tensor) -> bool:
    """True where a copy is no more than its numbers, and torch can put that off."""
    usual = tensor.layout is torch.strided and tensor.device.type in ("cpu", "cuda") and not vars(tensor)
    return usual and tensor.grad_fn is None and hasattr(tensor, "_lazy_clone")


def _computed_copies(model: nn.Module) -> dict[int, Any]:
    """Copies of what cannot be copied by `copy.deepcopy`, by the identity of the original."""
    kept = (value for module in model.modules() for value, _ in computed_values(module))
    return {id(value): value.detach().clone() for value in kept}


def computed_values(module: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """What a module keeps of what is computed anew at the next call: the value, and the tensor that tells its size.

    Beside attributes that hold what a hook makes of a parameter of the same shape, the list of weights of a recurrent
    layer, which has to be made again once it is cut.
    """
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            sources = (p for key, p in module._parameters.items() if p is not None and key.startswith(f"{name}_"))
            yield from ((value, source) for source in sources if source.shape == value.shape)
    if isinstance(module, nn.RNNBase):
        yield from ((value, value) for value in module._flat_weights if value is not None and value.grad_fn is not None)


def compute_again(module: nn.Module) -> None:
    """Give the attributes that hooks of torch compute the values that the parameters have now."""
    for hook in module._forward_pre_hooks.values():
        for kind, compute in _BY_HOOK.items():
            if isinstance(hook, kind):
                with torch.no_grad():
                    name, value = compute(hook, module)
                setattr(module, name, value)
