"""Networks of Hugging Face's transformers: from a config, or from a folder with safetensors; nothing is downloaded.

transformers is not imported here: its classes come from whoever looked them up.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from autoprune.config.bounded_files import given_path
from autoprune.errors import ConfigError, blame

_FOLDER = "pretrained"
_OWN = frozenset({"transformers_version", "architectures", "_name_or_path", "model_type", "dtype", "use_cache"})
"""Keys of a config that its class, or the one who loads it, sets."""


def is_auto_class(factory: object) -> bool:
    """Whether it is one of the classes that choose a class by a config, such as `AutoModelForCausalLM`."""
    return isinstance(factory, type) and hasattr(factory, "from_config") and hasattr(factory, "_model_mapping")


def reads_folder(factory: object, arguments: Mapping[str, Any]) -> bool:
    """Whether these arguments let a class of transformers read a folder."""
    known = isinstance(factory, type) and hasattr(factory, "from_pretrained")
    return known and _FOLDER in arguments


def from_folder(factory: Any, arguments: Mapping[str, Any], *, name: str) -> nn.Module:
    """The network in a folder that `save_pretrained` wrote; only safetensors are read.

    Args:
        factory: a class of transformers.
        arguments: `pretrained`, the folder, and what else `from_pretrained` takes.
        name: of the factory, for messages.

    Raises:
        ConfigError: no such folder, or nothing that can be read.
    """
    given = dict(arguments)
    folder = given_path(given.pop(_FOLDER), f"model: {_FOLDER}")
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"model {name!r}: {str(folder)!r} is no folder with a config.json; nothing is downloaded: give a folder "
            f"that save_pretrained wrote"
        )
    forbidden = sorted({"trust_remote_code", "local_files_only", "use_safetensors"} & set(given))
    if forbidden:
        raise ConfigError(f"model {name!r}: {forbidden[0]} cannot be set: only local safetensors are read")
    with blame(ConfigError, f"model {name!r} cannot be read from {folder}", then="Write the folder anew."):
        network: nn.Module = factory.from_pretrained(str(folder), local_files_only=True, use_safetensors=True, **given)
    return without_cache(network)


def by_config(factory: Any, arguments: Mapping[str, Any], *, name: str) -> nn.Module:
    """A network of the class that a config names by its `model_type`, with new weights.

    Raises:
        ConfigError: no config, or one of no known type.
    """
    config = arguments.get("config")
    if set(arguments) != {"config"} or not isinstance(config, Mapping) or "model_type" not in config:
        raise ConfigError(
            f"model {name!r} takes either `pretrained`, a folder, or `config`, keys and values with model_type among "
            f"them (llama, qwen3, gpt2, bert, …), got {', '.join(map(str, arguments)) or 'nothing'}"
        )
    with blame(ConfigError, f"the config of model {name!r} cannot be made", then="Correct its keys and values."):
        known = importlib.import_module("transformers").AutoConfig.for_model(**config)
    with blame(ConfigError, f"model {name!r} cannot be built", then="Correct its config."):
        network: nn.Module = factory.from_config(known)
    return network if "use_cache" in config else without_cache(network)


def without_cache(network: nn.Module) -> nn.Module:
    """The network, told to keep no cache: it is state, which no traced graph can hold."""
    config = getattr(network, "config", None)
    if getattr(config, "use_cache", False) is True:
        config.use_cache = False  # type: ignore[union-attr]  # looked at above
    return network


def described(network: nn.Module, factory: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """How the full model of a cut network is built, without a folder that others have not, and by its own class.

    Args:
        network: of the class of the full model, with its config.
        factory: as the job names it.
        arguments: as the job has them.
    """
    as_given = {"factory": factory, "arguments": arguments}
    config = getattr(network, "config", None)
    auto = type(network).__module__.startswith("transformers.") and factory.startswith("transformers")
    if not auto or not hasattr(config, "to_json_string"):
        return as_given
    if ".Auto" not in factory.replace(":", ".") and _FOLDER not in arguments:
        return as_given
    values = json.loads(config.to_json_string())  # type: ignore[union-attr]  # looked at above
    kept = {key: value for key, value in values.items() if key not in _OWN and value is not None}
    return {"factory": f"transformers:{type(network).__name__}", "arguments": {"config": {**kept, "use_cache": False}}}
