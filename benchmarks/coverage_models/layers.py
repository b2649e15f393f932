"""What the peers are measured by: which layers got smaller, and the FLOPs of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._pytree import tree_leaves

from coverage_models.catalogue import Example

Shapes = dict[str, tuple[int, ...]]


def is_layer(module: nn.Module) -> bool:
    """Whether it multiplies: convolution, linear, recurrent (also GPT-2's own linear layer, called Conv1D)."""
    return isinstance(module, nn.Linear | _ConvNd | nn.RNNBase) or type(module).__name__ == "Conv1D"


def run(model: nn.Module, example: Example) -> Any:
    """Call the model on its example."""
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def output_shapes(model: nn.Module, example: Example) -> list[tuple[int, ...]]:
    """The shapes of all tensors that the model returns."""
    with torch.no_grad():
        return [tuple(leaf.shape) for leaf in tree_leaves(run(model, example)) if isinstance(leaf, Tensor)]


def layer_shapes(model: nn.Module) -> Shapes:
    """Layer name -> sizes of its weights, as they are now."""
    return {
        name: tuple(size for key in _weights(module) for size in getattr(module, key).shape)
        for name, module in model.named_modules()
        if is_layer(module)
    }


def layer_flops(model: nn.Module, example: Example) -> dict[str, int]:
    """Layer name -> multiply-adds of one pass; products between activations (attention) belong to no layer."""
    counts: dict[str, int] = {}
    handles = []
    for name, module in model.named_modules():
        if is_layer(module):
            counts[name] = 0

            def count(layer: nn.Module, inputs: tuple[Any, ...], output: Any, name: str = name) -> None:
                counts[name] += _positions(layer, inputs[0], output) * sum(
                    getattr(layer, key).numel() for key in _weights(layer)
                )

            handles.append(module.register_forward_hook(count))
    try:
        with torch.no_grad():
            run(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return counts


def share(before: Shapes, after: Shapes, flops: Mapping[str, int]) -> dict[str, Any]:
    """How many layers got smaller, and the share of the FLOPs that they hold."""
    smaller = [name for name, shape in before.items() if after.get(name, shape) != shape]
    return {
        "layers": len(before),
        "layers_cut": len(smaller),
        "flops_share": sum(flops.get(name, 0) for name in smaller) / max(1, sum(flops.values())),
    }


def _weights(module: nn.Module) -> list[str]:
    return [key for key, value in module.named_parameters(recurse=False) if value.ndim > 1] or (
        ["weight"] if isinstance(getattr(module, "weight", None), Tensor) else []
    )


def _positions(layer: nn.Module, given: Tensor, output: Any) -> int:
    """How often every weight is used."""
    if isinstance(layer, _ConvTransposeNd):
        return given.numel() // given.shape[-1 - len(layer.kernel_size)]
    if isinstance(layer, _ConvNd):
        return int(output.numel() // output.shape[-1 - len(layer.kernel_size)])
    return math.prod(given.shape[:-1])
