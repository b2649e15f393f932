"""Fresh weights: what the modules of a network, and the network as a whole, begin a training with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from autoprune.space.copying import copy_network
from autoprune.space.cutting.graph_form import GraphNetwork

_EMBEDDINGS = (nn.Embedding.reset_parameters, nn.EmbeddingBag.reset_parameters)
_OF_TORCH = (*_EMBEDDINGS, nn.Linear.reset_parameters)


@final
@dataclass(frozen=True, slots=True)
class _Moments:
    """Of the elements of a parameter; row `padding` of an embedding is 0."""

    mean: float
    deviation: float
    padding: int | None = None

    def draw(self, parameter: Tensor) -> None:
        if self.deviation:
            parameter.normal_(self.mean, self.deviation)
        else:
            parameter.fill_(self.mean)
        if self.padding is not None:
            parameter[self.padding].zero_()


@torch.no_grad()
def fresh_weights(model: nn.Module) -> None:
    """Draw all weights anew, in place, from the global random state; see `protocols.reinitialise`.

    Embeddings of torch's own initialisation keep their moments, as N(0, 1) is none that a network with tied weights
    can begin with (Radford et al. 2019, section 2.3, take a deviation of 0.02). Where there are some, a network's
    `_init_weights(module)` is asked about each of its modules, as the networks of Hugging Face and nanoGPT do
    themselves. It is passed over, as is the `reset_parameters` of a network in graph form, whose attributes are those
    of full widths, where it fails or gives tensors of other shapes.
    """
    embeddings = _moments_of_embeddings(model)
    for module in reversed(list(model.modules())):
        root = module.traced_root if isinstance(module, GraphNetwork) else module
        reset = getattr(root, "reset_parameters", None)
        if callable(reset) and root is module:
            reset()
        else:
            for parameter in module.parameters(recurse=False):
                _moments(parameter, embeddings).draw(parameter)
            if callable(reset):
                _take(root, lambda network: network.reset_parameters())  # type: ignore[operator]
            elif embeddings and _takes_modules(getattr(root, "_init_weights", None)):
                _take(root, lambda network: network.apply(network._init_weights))  # type: ignore[arg-type]
        if getattr(type(root), "reset_parameters", None) in _OF_TORCH:
            for parameter in module.parameters(recurse=False):
                if id(parameter) in embeddings:  # of an output layer, too, that is tied to one
                    embeddings[id(parameter)].draw(parameter)


def _moments_of_embeddings(model: nn.Module) -> dict[int, _Moments]:
    """By the identity of the weight, which other modules may have, too."""
    found: dict[int, _Moments] = {}
    for module in model.modules():
        root = module.traced_root if isinstance(module, GraphNetwork) else module
        if isinstance(root, nn.Embedding | nn.EmbeddingBag) and type(root).reset_parameters in _EMBEDDINGS:
            weight = root.weight
            mean, deviation = _moments(weight, found).mean, _moments(weight, found).deviation
            found[id(weight)] = _Moments(mean, deviation, root.padding_idx)
    return found


def _moments(parameter: Tensor, known: Mapping[int, _Moments]) -> _Moments:
    if id(parameter) in known:
        return known[id(parameter)]
    if not parameter.numel():
        return _Moments(0.0, 0.0)
    varies = bool(parameter.min() < parameter.max())
    mean = parameter.mean().item() if varies else parameter.flatten()[0].item()
    return _Moments(mean, parameter.std().item() if varies else 0.0)


def _takes_modules(method: Any) -> bool:
    """Whether this is a function of a module, as `nn.Module.apply` wants, which its first argument's name tells."""
    if not callable(method):
        return False
    try:
        bound = inspect.signature(method).bind(None)
    except (TypeError, ValueError):
        return False
    return next(iter(bound.arguments)) in ("module", "m", "mod", "layer")


def _take(network: nn.Module, begin: Callable[[nn.Module], object]) -> None:
    """Let a copy of the network begin, and take its values where they fit."""
    trial = copy_network(network)
    try:
        begin(trial)
    except Exception:  # noqa: BLE001 - code of the user's own, made for full widths, may fail in any way
        return
    mine, fresh = ({**dict(one.named_parameters()), **dict(one.named_buffers())} for one in (network, trial))
    if {name: value.shape for name, value in mine.items()} == {name: value.shape for name, value in fresh.items()}:
        for name, value in fresh.items():
            mine[name].copy_(value)
