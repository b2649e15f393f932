"""CIFAR-style reference networks by name, networks of the user's own by `module:factory`, and weights from a file."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.errors import ConfigError, blame, suggest
from autoprune.registry import Registry, load_object

if TYPE_CHECKING:  # listing the names must not import torch
    from torch import nn

__all__ = ["ZOO", "build_model", "load_weights"]

ZOO = Registry(
    "zoo network",
    {
        "resnet20": "autoprune.zoo.resnet:resnet20",
        "resnet56": "autoprune.zoo.resnet:resnet56",
        "resnet110": "autoprune.zoo.resnet:resnet110",
        "preresnet164": "autoprune.zoo.preresnet:preresnet164",
        "vgg16": "autoprune.zoo.vgg:vgg16",
        "vgg19": "autoprune.zoo.vgg:vgg19",
        "mobilenetv2": "autoprune.zoo.mobilenet:mobilenetv2",
        "densenet40": "autoprune.zoo.densenet:densenet40",
    },
    group="autoprune.zoo",
)


def build_model(name_or_path: str, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a network with PyTorch's own initialisation, drawn from the global generator like any module's.

    Args:
        name_or_path: a name in `ZOO`, or `module:factory` for a function or class of the user's own.
        arguments: keyword arguments of the factory.

    Raises:
        RegistryError: no such name, module or attribute.
        ConfigError: the factory does not take these arguments, fails, or does not return an `nn.Module`.
    """
    from torch import nn

    factory = load_object(name_or_path) if ":" in name_or_path else ZOO.get(name_or_path)
    if not callable(factory) or isinstance(factory, nn.Module):
        raise ConfigError(
            f"model {name_or_path!r} is a {type(factory).__name__}; name a function or class that builds a new network"
        )
    keywords = dict(arguments or {})
    signature = inspect.signature(factory)
    try:
        signature.bind(**keywords)
    except TypeError as error:
        allowed = list(signature.parameters)
        unknown = next((name for name in keywords if name not in allowed), "")
        raise ConfigError(
            f"model {name_or_path!r}: {error}; it takes {', '.join(allowed) or 'none'}.{suggest(unknown, allowed)}"
        ) from error
    with blame(ConfigError, f"model {name_or_path!r} cannot be built", then="Correct its arguments or its code."):
        model = factory(**keywords)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model {name_or_path!r} returned a {type(model).__name__}; it must return a torch.nn.Module")
    return model


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Copy the weights in a file into `model`; on an error the model is left as it was.

    Args:
        model: receives the weights in place.
        path: `.safetensors`, or a state dict written by `torch.save` (read with `weights_only=True`), bare or under
            the key "state_dict" or "model" of a checkpoint; a `module.` prefix on every key is dropped.

    Raises:
        ConfigError: the file is missing or unreadable, or its keys or shapes are not those of the model.
    """
    from autoprune.zoo.weights import read_weights

    weights = read_weights(Path(path))
    own = model.state_dict()
    if all(key.startswith("module.") for key in weights) and not any(key.startswith("module.") for key in own):
        weights = {key.removeprefix("module."): tensor for key, tensor in weights.items()}
    problems = {
        "missing": [key for key in own if key not in weights],
        "unexpected": [key for key in weights if key not in own],
        "of another shape": [
            f"{key} {tuple(weights[key].shape)} instead of {tuple(tensor.shape)}"
            for key, tensor in own.items()
            if key in weights and weights[key].shape != tensor.shape
        ],
    }
    if any(problems.values()):
        found = "; ".join(f"{len(keys)} {kind}: {_first(keys)}" for kind, keys in problems.items() if keys)
        raise ConfigError(
            f"{path} does not hold the weights of this {type(model).__name__}: {found}. "
            f"Check the name and the arguments of the model."
        )
    model.load_state_dict(weights)


def _first(keys: list[str], most: int = 3) -> str:
    return ", ".join(keys[:most]) + (", …" if len(keys) > most else "")
