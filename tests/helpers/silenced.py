"""What a cut network must compute, found by code of its own: the full model in which all dropped entries are silent.

Which entries a cut keeps is read off a copy of the model whose every entry is its own number. In a second copy, all
others are zero, and what takes a statistic over channels takes it over those that are kept. Only the public door of
autoprune is used: `trace`, and what it returns.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from composed_images import Where
from composed_nets import Inputs
from composed_parts import ChannelSoftmax
from composed_sequences import Bare
from torch import Tensor, nn

from autoprune import Space

Kept = Mapping[str, Tensor]


def named(model: nn.Module) -> dict[str, Tensor]:
    """All tensors of floating point."""
    both = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return {name: tensor for name, tensor in both if tensor.is_floating_point()}


def kept_entries(space: Space, model: nn.Module, widths: tuple[int, ...], seed: int) -> Kept:
    """Tensor name -> True where an entry is in the cut network (of the criterion "random", which sees no weight)."""
    marked = copy.deepcopy(model).double()
    with torch.no_grad():
        for tensor in named(marked).values():
            tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape))
    cut = named(space.slice(marked, widths, criterion="random", seed=seed))
    kept = {}
    for name, tensor in named(model).items():
        flags = torch.zeros(tensor.numel(), dtype=torch.bool)
        flags[cut[name].flatten().long()] = True
        assert int(flags.sum()) == cut[name].numel(), f"{name}: an entry is there twice"
        kept[name] = flags.reshape(tensor.shape)
    return kept


def silenced(model: nn.Module, kept: Kept) -> nn.Module:
    """A copy of the full model in which what is not kept is zero, and counts nowhere."""
    clone = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in named(clone).items():
            tensor[~kept[name]] = 0
    names = {module: name for name, module in clone.named_modules()}
    for name, module in clone.named_modules():
        for kind, statistic in STATISTICS.items():
            if isinstance(module, kind) and getattr(module, "weight", True) is not None:
                there = _channels(module, name, names, kept)
                module.register_forward_hook(partial(_instead, statistic=statistic, there=there))
    return clone


def _channels(module: Any, name: str, names: Mapping[nn.Module, str], kept: Kept) -> Tensor:
    """Which channels of its input are there."""
    if isinstance(module, Bare):
        return kept[f"{names[module.read_by[0]]}.weight"].any(0)
    if isinstance(module, Where | ChannelSoftmax):
        return kept[f"{names[module.made_by[0]]}.weight"].flatten(1).any(1)
    return kept[f"{name}.weight"]


def _instead(
    module: nn.Module, args: tuple[Tensor, ...], made: Tensor, *, statistic: Callable[..., Tensor], there: Tensor
) -> Tensor:
    return made if bool(there.all()) else statistic(module, args[0], there)


def _standard(x: Tensor, there: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """Mean zero, variance one, over what is there."""
    m = there.to(x.dtype).expand_as(x)
    count = m.sum(dims, keepdim=True).clamp(min=1)
    centred = (x - (x * m).sum(dims, keepdim=True) / count) * m
    return centred * (centred.square().sum(dims, keepdim=True) / count + eps).rsqrt()


def _layer_norm(norm: nn.LayerNorm, x: Tensor, there: Tensor) -> Tensor:
    return _standard(x, there, tuple(range(x.ndim - there.ndim, x.ndim)), norm.eps) * norm.weight + norm.bias


def _rms_norm(norm: nn.RMSNorm, x: Tensor, there: Tensor) -> Tensor:
    eps = torch.finfo(x.dtype).eps if norm.eps is None else norm.eps
    squares = (x * there).square().sum(-1, keepdim=True) / there.sum().clamp(min=1)
    return x * there * (squares + eps).rsqrt() * norm.weight


def _group_norm(norm: nn.GroupNorm, x: Tensor, there: Tensor) -> Tensor:
    grouped = x.reshape(len(x), norm.num_groups, -1, *x.shape[2:])
    of_groups = there.view(norm.num_groups, -1, *[1] * (x.ndim - 2))
    y = _standard(grouped, of_groups, tuple(range(2, grouped.ndim)), norm.eps).reshape(x.shape)
    shape = (1, -1, *[1] * (x.ndim - 2))
    return y * norm.weight.view(shape) + norm.bias.view(shape)


def _bare(norm: Bare, x: Tensor, there: Tensor) -> Tensor:
    return _standard(x, there, (-1,), 1e-5)


def _softmax(_: ChannelSoftmax, x: Tensor, there: Tensor) -> Tensor:
    return x.masked_fill(~there, float("-inf")).softmax(-1)


def _where(module: Where, x: Tensor, there: Tensor) -> Tensor:
    alive = x[:, there]
    return module.weighted(x, alive.mean(1, keepdim=True), alive.amax(1, keepdim=True))


STATISTICS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _rms_norm,
    nn.GroupNorm: _group_norm,
    Bare: _bare,
    ChannelSoftmax: _softmax,
    Where: _where,
}
"""Torch's norms inside a `Bare` have no weight: the hook of the `Bare` replaces what they give."""


def difference(found: Any, expected: Any) -> float:
    """Largest difference, relative to the largest expected value; infinite where shapes differ or numbers end."""
    if found.shape != expected.shape or not bool(found.isfinite().all()):
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


def cut_error(space: Space, model: nn.Module, widths: tuple[int, ...], seed: int, inputs: Inputs) -> float:
    """How far the cut network is from the silenced one; in double precision where single precision shows something."""
    error = _cut_error(space, model, widths, seed, inputs)
    if error <= 1e-4:
        return error
    try:
        doubles = tuple(x.double() if x.is_floating_point() else x for x in inputs)
        return _cut_error(space, copy.deepcopy(model).double(), widths, seed, doubles)
    except RuntimeError:  # a graph that was traced in single precision may say so in a conversion
        return error


def _cut_error(space: Space, model: nn.Module, widths: tuple[int, ...], seed: int, inputs: Inputs) -> float:
    kept = kept_entries(space, model, widths, seed)
    with torch.no_grad():
        expected = silenced(model, kept).eval()(*inputs)
        found = space.slice(model, widths, criterion="random", seed=seed).eval()(*inputs)
    return difference(found, expected)


def training_step(network: nn.Module, inputs: Inputs, seed: int) -> dict[str, Tensor]:
    """Outputs, gradients and buffers of one pass forward and back in training mode."""
    network.train().zero_grad()
    given = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        y = network(*given)
        F.cross_entropy(y.flatten(0, -2), y.flatten(0, -2).argmin(-1)).backward()
    found = {"output": y.detach()}
    found |= {f"gradient of input {i}": x.grad for i, x in enumerate(given) if x.grad is not None}
    found |= {f"gradient of {n}": p.grad for n, p in network.named_parameters() if p.grad is not None}
    return found | {f"buffer {n}": b.double() for n, b in network.named_buffers()}


def trains_otherwise(space: Space, model: nn.Module, inputs: Inputs) -> str | None:
    """The first thing in which the network of full width trains otherwise than the model; None where nothing is."""
    full = space.slice(model, space.full)
    try:
        expected = training_step(copy.deepcopy(model), inputs, 0)
    except ValueError:  # torch's batch norms refuse one value
        return None
    found = training_step(full, inputs, 0)
    if expected.keys() != found.keys():
        return f"only one has {sorted(expected.keys() ^ found.keys())[:3]}"
    largest = max(float(v.abs().max()) for n, v in expected.items() if n.startswith("gradient"))
    for name, value in expected.items():
        scale = float(value.abs().max().clamp(min=1e-6))
        if "gradient" in name:
            scale = max(scale, 1e-3 * largest)
        if value.shape != found[name].shape or not float((value - found[name]).abs().max()) <= 1e-3 * scale:
            return f"{name} differs by {float((value - found[name]).abs().max()) / scale:.1e}"
    return None
