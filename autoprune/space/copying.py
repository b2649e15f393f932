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
    kept = (value for module in model.modules() for _, value, _ in computed_by_hooks(module))
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in kept})


def computed_by_hooks(module: nn.Module) -> Iterator[tuple[str, Tensor, nn.Parameter]]:
    """Attributes that hold what is computed from a parameter of the same shape: name, value, that parameter."""
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            sources = (p for key, p in module._parameters.items() if p is not None and key.startswith(f"{name}_"))
            source = next((p for p in sources if p.shape == value.shape), None)
            if source is not None:
                yield name, value, source


def compute_again(module: nn.Module) -> None:
    """Give the attributes that hooks of torch compute the values that the parameters have now."""
    for hook in module._forward_pre_hooks.values():
        for kind, compute in _BY_HOOK.items():
            if isinstance(hook, kind):
                with torch.no_grad():
                    name, value = compute(hook, module)
                setattr(module, name, value)
