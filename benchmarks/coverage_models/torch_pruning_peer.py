"""Torch-Pruning on one model: prune 30 % of every group by magnitude, and see what got smaller and whether it runs.

It is helped where its own examples help it: the layers that write the output are ignored, and attention modules that
say how many heads they have are announced.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from coverage_models.catalogue import Example
from coverage_models.layers import is_layer, layer_flops, layer_shapes, output_shapes, run, share

NAME = "Torch-Pruning"
PRELOAD = ("torch_pruning",)

RATIO = 0.3


def measure(model: nn.Module, example: Example) -> dict[str, Any]:
    """Share of FLOPs in layers that got smaller; raises what Torch-Pruning or the pruned network raises."""
    import torch_pruning

    before, flops, shapes = layer_shapes(model), layer_flops(model, example), output_shapes(model, example)
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(),
        pruning_ratio=RATIO,
        ignored_layers=output_layers(model, example),
        num_heads=_heads(model),
        output_transform=_differentiable,
    )
    pruner.step()
    return check(model, example, shapes, share(before, layer_shapes(model), flops))


def check(model: nn.Module, example: Example, shapes: list[tuple[int, ...]], found: dict[str, Any]) -> dict[str, Any]:
    """Run the pruned network, and say whether it is one."""
    try:
        outputs = output_shapes(model.eval(), example)
    except Exception as error:  # noqa: BLE001 - any error of the pruned network is the result
        return {"status": "broken", "problem": f"pruned network: {type(error).__name__}: {error}"}
    if outputs != shapes:
        return {"status": "broken", "problem": f"the pruned network's output is {outputs}, not {shapes}"}
    if not found["layers_cut"]:
        return {"status": "nothing", "problem": f"none of {found['layers']} layers got smaller"}
    return {"status": "works", **found}


def output_layers(model: nn.Module, example: Example) -> list[nn.Module]:
    """The layers that the output reaches without passing through another layer."""
    owner = {id(p): module for module in model.modules() if is_layer(module) for p in module.parameters(recurse=False)}
    with torch.enable_grad():
        outputs = _differentiable(run(model, example))
    found: dict[int, nn.Module] = {}
    seen: set[Any] = set()
    waiting = [output.grad_fn for output in outputs]
    while waiting:
        function = waiting.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        children = [child for child, _ in function.next_functions if child is not None]
        near = children + [
            grand for child in children if child.name() == "TBackward0" for grand, _ in child.next_functions
        ]
        owners = [owner[id(c.variable)] for c in near if hasattr(c, "variable") and id(c.variable) in owner]
        found.update({id(module): module for module in owners})
        if not owners:
            waiting.extend(children)
    return list(found.values())


def _differentiable(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.grad_fn is not None]


def _heads(model: nn.Module) -> dict[nn.Module, int]:
    """Projection -> number of heads, for the usual names of attention modules."""
    heads: dict[nn.Module, int] = {}
    for module in model.modules():
        count = getattr(module, "num_heads", None) or getattr(module, "num_attention_heads", None)
        if isinstance(count, int):
            for name in ("qkv", "query", "key", "value", "q_proj", "k_proj", "v_proj"):
                if isinstance(child := getattr(module, name, None), nn.Linear):
                    heads[child] = count
            if isinstance(module, nn.MultiheadAttention):
                heads[module] = count
    return heads
