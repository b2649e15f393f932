"""NVIDIA Model Optimizer on one model: convert to its FastNAS space, take the smallest network, and see if it runs.

Its default rounds widths to multiples of 32, which would leave narrow layers whole; 1 is given instead.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from coverage_models.catalogue import Example
from coverage_models.layers import layer_flops, layer_shapes, output_shapes, share
from coverage_models.torch_pruning_peer import check

NAME = "Model Optimizer"
PRELOAD = ("modelopt.torch.nas", "modelopt.torch.prune")


def measure(model: nn.Module, example: Example) -> dict[str, Any]:
    """Share of FLOPs in layers that got smaller; raises what Model Optimizer raises."""
    from modelopt.torch.nas.utils import sample
    from modelopt.torch.opt.conversion import apply_mode
    from modelopt.torch.prune.fastnas import FastNASConfig
    from modelopt.torch.prune.pruning import PruneModeRegistry

    before, flops, shapes = layer_shapes(model), layer_flops(model, example), output_shapes(model, example)
    config = FastNASConfig().model_dump()
    for rules in config.values():
        for rule in rules.values():
            rule.update({key: 1 for key in rule if key.endswith("divisor")})
    model = apply_mode(model, mode=[("fastnas", config)], registry=PruneModeRegistry)
    sample(model, min)
    return check(model, example, shapes, share(before, layer_shapes(model), flops))
