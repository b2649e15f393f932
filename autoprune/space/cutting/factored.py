"""A layer as the product of two: the truncated singular value decomposition of its weights."""

from __future__ import annotations

from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from autoprune.space.factors import LayerFactors


class Decomposition(NamedTuple):
    """Of a matrix of (outputs, inputs x kernel) = left diag(values) right, float64, values descending."""

    left: Tensor
    values: Tensor
    right: Tensor


def decomposed(weight: Tensor) -> Decomposition:
    """The singular value decomposition of weights of (outputs, inputs, kernel)."""
    return Decomposition(*torch.linalg.svd(weight.detach().flatten(1).double(), full_matrices=False))


def _empty(kind: Any, *sizes: Any, **given: Any) -> nn.Module:
    """A layer that draws nothing."""
    made: nn.Module = nn.utils.skip_init(kind, *sizes, **given)  # type: ignore[no-untyped-call]
    return made


def two_layers(layer: nn.Module, found: Decomposition, rank: int) -> nn.Sequential:
    """Two layers whose product is the best approximation of this rank (Eckart & Young 1936); each takes
    the root of the singular values.

    Args:
        layer: a plain convolution or linear layer; only read.
        found: the decomposition of its weights.
        rank: at most as many as there are singular values.
    """
    weight: Any = layer.weight
    bias: Any = layer.bias
    root = found.values[:rank].sqrt()
    left, right = found.left[:, :rank] * root, root[:, None] * found.right[:rank]
    like: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    outputs, inputs = weight.shape[:2]
    if isinstance(layer, nn.Linear):
        first: nn.Module = _empty(nn.Linear, inputs, rank, bias=False, **like)
        second: nn.Module = _empty(nn.Linear, rank, outputs, bias=bias is not None, **like)
    else:
        kind: Any = type(layer)
        own: Any = layer
        given = {name: getattr(own, name) for name in ("stride", "padding", "dilation", "padding_mode")}
        first = _empty(kind, inputs, rank, own.kernel_size, bias=False, **given, **like)
        second = _empty(kind, rank, outputs, 1, bias=bias is not None, **like)
    made: Any = nn.Sequential()
    made.add_module("first", first)
    made.add_module("second", second)
    with torch.no_grad():
        made.first.weight.copy_(right.reshape(made.first.weight.shape))
        made.second.weight.copy_(left.reshape(made.second.weight.shape))
        if bias is not None:
            made.second.bias.copy_(bias)
            made.second.bias.requires_grad_(bias.requires_grad)
    for part in (made.first.weight, made.second.weight):
        part.requires_grad_(weight.requires_grad)
    for module in made.modules():
        module.training = layer.training
    result: nn.Sequential = made
    return result


@final
class Factoring:
    """Puts factors in the place of layers of copies of one network; decompositions are made once for the same weights.

    Args:
        model: the network; only read.
        factors: of its layers, with the group of each.
    """

    def __init__(self, model: nn.Module, factors: list[tuple[int, LayerFactors]]) -> None:
        self._model, self._factors = model, factors
        self._known: dict[str, tuple[tuple[int, int], Decomposition]] = {}

    def put(self, network: nn.Module, widths: tuple[int, ...]) -> None:
        """Replace layers of a copy of the network, in place, where their widths are below the full ones."""
        for group, factors in self._factors:
            if widths[group] <= factors.highest:
                layer = network.get_submodule(factors.layer)
                parent, _, attribute = factors.layer.rpartition(".")
                made = two_layers(layer, self._of(factors), widths[group])
                setattr(network.get_submodule(parent), attribute, made)

    def _of(self, factors: LayerFactors) -> Decomposition:
        weight: Any = self._model.get_submodule(factors.layer).weight
        state = weight.data_ptr(), weight._version
        known = self._known.get(factors.layer)
        if known is None or known[0] != state:
            known = self._known[factors.layer] = state, decomposed(weight)
        return known[1]
