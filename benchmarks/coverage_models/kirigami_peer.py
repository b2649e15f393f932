"""torch-kirigami on one model: cut 30 % of every group by magnitude, and see whether the result is a network.

No edit of any forward, and no list of layers to leave out: its graph protects outputs by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from coverage_models.catalogue import Example
from coverage_models.layers import layer_flops, layer_shapes, output_shapes, share
from coverage_models.torch_pruning_peer import RATIO, check

NAME = "torch-kirigami"
PRELOAD = ("torch_kirigami.pruning",)


def measure(model: nn.Module, example: Example) -> dict[str, Any]:
    """Share of FLOPs in layers that got smaller; raises what torch-kirigami raises."""
    from torch_kirigami import DependencyGraph
    from torch_kirigami.pruning import ChannelRatio, Greedy, GroupMagnitude, Pruner

    before, flops, shapes = layer_shapes(model), layer_flops(model, example), output_shapes(model, example)
    args = example if isinstance(example, tuple) else () if isinstance(example, Mapping) else (example,)
    kwargs = dict(example) if isinstance(example, Mapping) else None
    pruner = Pruner(model, graph=DependencyGraph.build(model, args=args, kwargs=kwargs))
    candidates = pruner.discover_candidates()
    model, _ = pruner.prune(candidates, budget=ChannelRatio(RATIO), strategy=Greedy(GroupMagnitude(p=2)))
    return check(model, example, shapes, share(before, layer_shapes(model), flops))
