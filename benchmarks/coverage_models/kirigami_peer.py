"""torch-kirigami on one model: cut 30 % of every group by magnitude, and see whether the result is a network.

Where it finds no plan that cuts all of them as far, it is given what it can reach: 30 %, 20 %, 10 % or 5 % of all
channels together. No edit of any forward, and no list of layers to leave out: its graph protects outputs by itself.
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
    from torch_kirigami.pruning import ChannelRatio, Greedy, GroupMagnitude, PlanningError, Pruner

    before, flops, shapes = layer_shapes(model), layer_flops(model, example), output_shapes(model, example)
    args = example if isinstance(example, tuple) else () if isinstance(example, Mapping) else (example,)
    kwargs = dict(example) if isinstance(example, Mapping) else None
    pruner = Pruner(model, graph=DependencyGraph.build(model, args=args, kwargs=kwargs))
    candidates, strategy = pruner.discover_candidates(), Greedy(GroupMagnitude(p=2))
    budgets = [ChannelRatio(RATIO), *(ChannelRatio(ratio, scope="global") for ratio in (RATIO, 0.2, 0.1, 0.05))]
    for budget in budgets:
        try:
            plan = pruner.plan(candidates, budget=budget, strategy=strategy)
            break
        except PlanningError as error:
            problem = error
    else:
        raise problem
    model, _ = pruner.apply(plan)
    return check(model, example, shapes, share(before, layer_shapes(model), flops))
