"""An oracle for cut networks that shares no code with the verification.

Every entry of every tensor is replaced by its own flat index before slicing; what is found in the sliced network then
tells which indices survived. On the full network, hooks zero the inputs of every convolution and linear layer that
the sliced one no longer reads.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.slicing import Ranking, slice_model


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy in evaluation mode in which no tensor is constant, so that every wrong index shows."""
    clone = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*clone.parameters(), *clone.buffers()):
            if tensor.is_floating_point() and tensor.numel() > 1 and float(tensor.std()) == 0.0:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return clone


def random_ranking(space: SearchSpace, rng: np.random.Generator) -> Ranking:
    return tuple(rng.permutation(group.width) for group in space.groups)


def random_widths(space: SearchSpace, rng: np.random.Generator) -> Widths:
    return tuple(int(rng.choice(group.choices)) for group in space.groups)


def surviving(model: nn.Module, space: SearchSpace, widths: Widths, ranking: Ranking) -> dict[str, list[np.ndarray]]:
    """Tensor name -> per axis the indices that the sliced network keeps."""
    marked = copy.deepcopy(model).double()
    with torch.no_grad():
        for tensor in (*marked.parameters(), *marked.buffers()):
            tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape))
    kept = {}
    for name, values in slice_model(marked, space, widths, ranking).state_dict().items():
        marks, full = values.long(), marked.state_dict()[name].shape
        sizes = [math.prod(full[axis + 1 :]) for axis in range(len(full))]
        kept[name] = [(marks // size % n).unique().numpy() for size, n in zip(sizes, full, strict=True)]
        assert values.shape == tuple(len(k) for k in kept[name])  # a rectangle, and no index twice
    return kept


def masked_outputs(
    model: nn.Module, space: SearchSpace, widths: Widths, ranking: Ranking, *inputs: Any
) -> list[Tensor]:
    """Outputs of the full network when each layer reads only the inputs that the sliced network still reads."""
    kept = surviving(model, space, widths, ranking)
    clone = copy.deepcopy(model)
    for name, module in clone.named_modules(remove_duplicate=False):
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear) and f"{name}.weight" in kept:
            transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
            n_groups = 1 if isinstance(module, nn.Linear) or transposed else module.groups
            length = module.weight.shape[0 if transposed else 1]
            mask = torch.zeros(length)
            mask[torch.from_numpy(kept[f"{name}.weight"][0 if transposed else 1])] = 1.0
            dim = -1 if isinstance(module, nn.Linear) else -(module.weight.ndim - 1)
            module.register_forward_pre_hook(_zeroing(mask.repeat(n_groups), dim))
    return outputs(clone, *inputs)


def outputs(model: nn.Module, *inputs: Any) -> list[Tensor]:
    with torch.no_grad():
        return [leaf for leaf in tree_leaves(model(*inputs)) if isinstance(leaf, Tensor)]


def largest_error(model: nn.Module, space: SearchSpace, widths: Widths, ranking: Ranking, *inputs: Any) -> float:
    """Largest difference between the sliced and the masked network, relative to the largest output."""
    expected = masked_outputs(model, space, widths, ranking, *inputs)
    found = outputs(slice_model(model, space, widths, ranking), *inputs)
    assert [f.shape for f in found] == [e.shape for e in expected]
    pairs = zip(found, expected, strict=True)
    return max(float((f - e).abs().max() / e.abs().max().clamp_min(1e-30)) for f, e in pairs)


def _zeroing(mask: Tensor, dim: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        shape = [1] * inputs[0].ndim
        shape[dim] = -1
        return (inputs[0] * mask.reshape(shape), *inputs[1:])

    return hook
