"""Layers that two others take the place of are tried: at full rank the network must compute what it did."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autoprune.errors import SpaceError
from autoprune.randomness import untouched
from autoprune.space.copying import copy_network
from autoprune.space.cutting.factored import decomposed, two_layers
from autoprune.space.groups import SearchSpace
from autoprune.space.tracing.program import Example, run_model
from autoprune.space.verification.comparison import in_double, relative

_LARGEST = 1e-6


def check_factored(model: nn.Module, space: SearchSpace, example: Example) -> float:
    """Replace every layer that has a rank by factors of all of its ranks, and compare the outputs.

    Args:
        model: the traced network; only read.
        space: of ranks.
        example: its inputs.

    Returns:
        The largest relative difference.

    Raises:
        SpaceError: a network with one of them replaced does not run, or gives something else; names the layer.
    """
    with untouched(), torch.no_grad():
        dense, doubled = in_double(model, example)
        expected = _tensors(run_model(dense.eval(), doubled))
        worst = 0.0
        for factors in space.factors:
            network = copy_network(dense)
            parent, _, attribute = factors.layer.rpartition(".")
            layer = network.get_submodule(factors.layer)
            found = decomposed(layer.weight)  # type: ignore[arg-type]
            setattr(network.get_submodule(parent), attribute, two_layers(layer, found, len(found.values)))
            problem = ""
            try:
                found_now = _tensors(run_model(network, doubled))
                error = max((relative(a, b) for a, b in zip(found_now, expected, strict=True)), default=0.0)
            except Exception as failed:  # noqa: BLE001 - whatever the user's forward does with a layer it looks into
                problem = f"{type(failed).__name__}: {failed}"
            else:
                worst = max(worst, error)
                problem = f"outputs differ by {error:.2g}" if not error <= _LARGEST else ""
            if problem:
                raise SpaceError(
                    f"layer {factors.layer!r} cannot be two layers in this {type(model).__name__} ({problem}); "
                    f"exclude it: exclude: [{factors.layer}]"
                )
    return worst


def _tensors(outputs: object) -> list[Tensor]:
    return [value for value in tree_leaves(outputs) if isinstance(value, Tensor)]
