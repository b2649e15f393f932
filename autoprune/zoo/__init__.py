"""Reference networks by name, networks of the user's own by `module:factory`, and weights from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoprune.config.settings import check_settings
from autoprune.errors import ConfigError, blame
from autoprune.registry import Part, Registry, load_object

if TYPE_CHECKING:  # listing the names must not import torch
    from torch import nn

__all__ = ["ZOO", "build_model", "build_with", "load_weights"]

ZOO = Registry(
    "zoo network",
    {
        "resnet20": Part(
            "autoprune.zoo.resnet:resnet20",
            "He et al. 2016, arXiv 1512.03385, section 4.2",
            "The quickest residual network that papers report on CIFAR-10.",
        ),
        "resnet56": Part(
            "autoprune.zoo.resnet:resnet56",
            "He et al. 2016, arXiv 1512.03385, section 4.2",
            "The network that most pruning papers report on CIFAR-10.",
        ),
        "resnet110": Part(
            "autoprune.zoo.resnet:resnet110",
            "He et al. 2016, arXiv 1512.03385, section 4.2",
            "Many groups: how a method fares with depth.",
        ),
        "preresnet164": Part(
            "autoprune.zoo.preresnet:preresnet164",
            "He et al. 2016, Identity Mappings, arXiv 1603.05027, section 4",
            "To compare with Network Slimming: bottlenecks with norms before the convolutions.",
        ),
        "vgg16": Part(
            "autoprune.zoo.vgg:vgg16",
            "Simonyan and Zisserman 2015, arXiv 1409.1556, table 1 (D), with batch norm",
            "A chain without residual sums, and far too wide for CIFAR: pruning has much to find.",
        ),
        "vgg19": Part(
            "autoprune.zoo.vgg:vgg19",
            "Simonyan and Zisserman 2015, arXiv 1409.1556, table 1 (E), with batch norm",
            "To compare with Network Slimming and SOSP, which report it on CIFAR-100.",
        ),
        "mobilenetv2": Part(
            "autoprune.zoo.mobilenet:mobilenetv2",
            "Sandler et al. 2018, arXiv 1801.04381, table 2",
            "Depthwise convolutions: a network that was made small already.",
        ),
        "densenet40": Part(
            "autoprune.zoo.densenet:densenet40",
            "Huang et al. 2017, arXiv 1608.06993, section 3",
            "Concatenations: every layer reads the channels of all before it.",
        ),
        "char_llama": Part(
            "autoprune.zoo.llama:char_llama",
            "Touvron et al. 2023, arXiv 2302.13971; grouped queries: Ainslie et al. 2023, arXiv 2305.13245",
            "A language model that is trained in minutes: rotary positions, grouped queries, SwiGLU, tied embeddings.",
        ),
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
    return build_with(
        load_object(name_or_path) if ":" in name_or_path else ZOO.get(name_or_path), arguments, name=name_or_path
    )


def build_with(factory: object, arguments: Mapping[str, Any] | None, *, name: str) -> nn.Module:
    """Build a network with a factory that was looked up already.

    Args:
        factory: a function or class.
        arguments: its keyword arguments.
        name: what messages call it.

    A class of transformers is given its `config` as keys and values, or `pretrained`, a folder to read.

    Raises:
        ConfigError: as for `build_model`.
    """
    from torch import nn

    from autoprune.zoo.hugging_face import by_config, from_folder, is_auto_class, reads_folder

    if not callable(factory) or isinstance(factory, nn.Module):
        raise ConfigError(
            f"model {name!r} is a {type(factory).__name__}; name a function or class that builds a new network"
        )
    keywords = dict(arguments or {})
    if reads_folder(factory, keywords):
        return from_folder(factory, keywords, name=name)
    if is_auto_class(factory):
        return by_config(factory, keywords, name=name)
    configuration = getattr(factory, "config_class", None)  # classes of transformers take an object
    if isinstance(keywords.get("config"), Mapping) and callable(configuration):
        with blame(ConfigError, f"the config of model {name!r} cannot be made", then="Correct its keys and values."):
            keywords["config"] = configuration(**keywords["config"])
    check_settings(factory, keywords, what=f"model {name!r}", place="the arguments of the model", noun="argument")
    with blame(ConfigError, f"model {name!r} cannot be built", then="Correct its arguments or its code."):
        model = factory(**keywords)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model {name!r} returned a {type(model).__name__}; it must return a torch.nn.Module")
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
