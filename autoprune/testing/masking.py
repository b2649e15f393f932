"""What a cut network should compute, found without the code that verifies it.

Every entry of every tensor is replaced by its own flat index before slicing; what is found in the sliced network then
tells which entries survive. In a copy of the user's own module all other entries are set to zero, so that cut channels
are zero and reach nobody, and hooks let norms take their statistics over the survivors.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autoprune.space.cutting.slicing import Ranking, slice_model
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.tracing.program import Example, run_model

Statistic: TypeAlias = Callable[[Any, Tensor, Tensor], Tensor]
"""(module, its input, which entries of a tensor survive) -> its output with statistics over the survivors."""

Statistics: TypeAlias = Mapping[str, tuple[str, Statistic]]
"""Path of a module -> name of a tensor with an entry for every channel, and the module over the survivors."""


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return a copy in evaluation mode in which no tensor is constant, so that every wrong index shows."""
    clone = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, tensor in _floating(clone):
            if tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return clone


def surviving(network: nn.Module, space: SearchSpace, widths: Widths, ranking: Ranking) -> dict[str, Tensor]:
    """Tensor name -> True where an entry of the full tensor is in the sliced network.

    Args:
        network: the full network in the form of the space.
        space: its verified space.
        widths: a member of the space.
        ranking: which channels to keep first.
    """
    marked = copy.deepcopy(network).double()
    with torch.no_grad():
        for _, tensor in _floating(marked):
            tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape))
    full = dict(_floating(marked))
    kept = {}
    for name, marks in _floating(slice_model(marked, space, widths, ranking)):
        entries = torch.zeros(full[name].numel(), dtype=torch.bool)
        entries[marks.flatten().long()] = True
        assert int(entries.sum()) == marks.numel(), f"{name}: an entry is there twice"
        kept[name] = entries.reshape(full[name].shape)
    return kept


def without_cut_channels(
    model: nn.Module, kept: Mapping[str, Tensor], statistics: Statistics | None = None
) -> nn.Module:
    """Return a copy of the full model whose cut channels are zero and count in no statistic.

    Args:
        model: the user's module; only read.
        kept: what `surviving` found.
        statistics: modules that take statistics over channels, beside torch's own norms.
    """
    clone = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in _floating(clone):
            if not name.endswith("running_var"):
                tensor.masked_fill_(~kept[name], 0.0)
        for name, tensor in _floating(clone):
            lengths = f"{name.removesuffix('original1')}original0"
            if name.endswith(".parametrizations.weight.original1") and len(kept[lengths]) == len(tensor):
                tensor[~kept[lengths].flatten()] = 1.0  # what has length 0 may have any direction but none
    given = statistics or {}
    for name, module in clone.named_modules():
        known = [(f"{name}.weight", STATISTICS[kind]) for kind in type(module).__mro__ if kind in STATISTICS]
        for source, statistic in [given[name]] if name in given else known[:1]:
            assert source in kept, f"{name}: no tensor tells which channels survive; name one in `statistics`"
            module.register_forward_hook(partial(_replaced, statistic=statistic, kept=kept[source]))
    return clone


def largest_error(
    model: nn.Module,
    network: nn.Module,
    space: SearchSpace,
    example: Example,
    widths: Widths,
    ranking: Ranking,
    statistics: Statistics | None = None,
) -> float:
    """Largest difference between the sliced and the masked network, relative to the largest output.

    Args:
        model: the user's module, in evaluation mode.
        network: the same in the form of the space: `model` itself, or its graph.
        space: the verified space.
        example: what the model is called with.
        widths: what is cut.
        ranking: which channels are kept first.
        statistics: see `without_cut_channels`.
    """
    expected = outputs(without_cut_channels(model, surviving(network, space, widths, ranking), statistics), example)
    return difference(outputs(slice_model(network, space, widths, ranking), example), expected)


def outputs(model: nn.Module, example: Example) -> list[Tensor]:
    """All tensors that a model returns, flat and without gradients."""
    with torch.no_grad():
        return [leaf for leaf in tree_leaves(run_model(model, example)) if isinstance(leaf, Tensor)]


def difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """Largest absolute difference of corresponding outputs, each relative to the largest expected entry."""
    assert [f.shape for f in found] == [e.shape for e in expected]
    pairs = [(f.double(), e.double()) for f, e in zip(found, expected, strict=True) if e.numel()]
    errors = [float((f - e).abs().max() / e.abs().max().clamp_min(1e-30)) for f, e in pairs]
    return max((error if math.isfinite(error) else math.inf for error in errors), default=0.0)


def _layer_norm(norm: nn.LayerNorm, x: Tensor, kept: Tensor) -> Tensor:
    dims, count = tuple(range(-kept.ndim, 0)), kept.sum()
    centred = (x - (x * kept).sum(dims, keepdim=True) / count) * kept
    scaled = centred / (centred.square().sum(dims, keepdim=True) / count + norm.eps).sqrt() * norm.weight
    return scaled if norm.bias is None else scaled + norm.bias


def _rms_norm(norm: nn.RMSNorm, x: Tensor, kept: Tensor) -> Tensor:
    eps = torch.finfo(x.dtype).eps if norm.eps is None else norm.eps
    square = (x * kept).square().sum(tuple(range(-kept.ndim, 0)), keepdim=True) / kept.sum()
    return x * kept / (square + eps).sqrt() * norm.weight


def _group_norm(norm: nn.GroupNorm, x: Tensor, kept: Tensor) -> Tensor:
    parts = x.reshape(len(x), norm.num_groups, len(kept) // norm.num_groups, -1)
    mask = kept.reshape(1, norm.num_groups, -1, 1)
    count = (mask.sum(2, keepdim=True) * parts.shape[-1]).clamp_min(1)
    centred = (parts - (parts * mask).sum((2, 3), keepdim=True) / count) * mask
    variance = centred.square().sum((2, 3), keepdim=True) / count
    shape = (1, -1, *[1] * (x.ndim - 2))
    return (centred / (variance + norm.eps).sqrt()).reshape(x.shape) * norm.weight.view(shape) + norm.bias.view(shape)


STATISTICS: dict[type[nn.Module], Statistic] = {
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.GroupNorm: _group_norm,
}
"""Modules that take statistics over channels, written out over the survivors of their weight."""


def _replaced(
    module: nn.Module, inputs: tuple[Any, ...], output: Tensor, *, statistic: Statistic, kept: Tensor
) -> Tensor:
    return statistic(module, inputs[0], kept).to(output.dtype)


def _floating(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers with values, also under their second names and outside of the state dict."""
    for named in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)):
        for name, tensor in named:
            if tensor.is_floating_point():
                yield name, tensor
