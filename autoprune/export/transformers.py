"""A folder that Hugging Face's transformers loads: a config of the cut widths, and the weights.

Longer than others, as what a config says, what is built by it and why it may not fit are read together.
"""

from __future__ import annotations

import copy
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from torch import Tensor, nn

from autoprune.errors import ExportError, blame
from autoprune.export.base import Exporter, ExportSource, WrittenFiles
from autoprune.randomness import seeded
from autoprune.space.groups import SearchSpace
from autoprune.space.options.ties import set_ranges
from autoprune.space.serial import from_json
from autoprune.space.tracing.blocks import Skip

_FOLDER = "transformers"
_USAGE = "from transformers import {name}; network = {name}.from_pretrained('transformers')"

_HEADS = ("num_attention_heads", "encoder_attention_heads", "decoder_attention_heads")
_KEY_VALUE_HEADS = "num_key_value_heads"
_HIDDEN = ("intermediate_size", "n_inner", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim")
_WIDTH = "hidden_size"
_DEPTH = ("num_hidden_layers", "encoder_layers", "decoder_layers")
_NUMBER = re.compile(r"\.(\d+)(?=\.|$)")


@final
class Transformers(Exporter):
    """Writes `transformers/config.json` and `transformers/model.safetensors`, for `from_pretrained`.

    Widths that are the same in all layers become those of the config; others its `per_layer_config`, where the class of
    the network in the installed version of transformers builds its layers by that. Layers that were left out are no
    longer counted. What is written is built from the config before, and compared shape by shape.
    """

    def write(self, source: ExportSource, folder: Path) -> WrittenFiles:
        """Write the folder.

        Raises:
            ExportError: the network is none of transformers, or its widths do not fit into a config.
        """
        network = source.network
        if not hasattr(network, "save_pretrained") or not hasattr(network, "config"):
            graph = source.architecture.get("form") == "graph"
            why = "was cut as its traced graph" if graph else f"is a {type(network).__name__}, no model of transformers"
            raise ExportError(f"transformers cannot load this network, as it {why}; take safetensors, module or onnx")
        plan = plan_of(network, widths_by_layer(from_json(dict(source.space)), source.architecture["widths"]))
        made = _built(network, plan)
        weights = {plan.renamed(name): tensor for name, tensor in source.weights.items()}
        _check_shapes(made, weights, plan)
        with blame(ExportError, "transformers does not take the weights"), _quietly():
            made.load_state_dict(weights, strict=False)
            made.save_pretrained(folder / _FOLDER)
        files = tuple(sorted((folder / _FOLDER).iterdir()))
        return WrittenFiles(files, usage=_USAGE.format(name=type(network).__name__))

    def read(self, folder: Path) -> Callable[..., Any]:
        """The network as `from_pretrained` gives it."""
        library = importlib.import_module("transformers")
        written = json.loads((folder / _FOLDER / "config.json").read_text())
        kind = getattr(library, written["architectures"][0])
        with _quietly():
            network: nn.Module = kind.from_pretrained(str(folder / _FOLDER), local_files_only=True)
        config: Any = network.config
        if getattr(config, "use_cache", False):
            config.use_cache = False
        return network.eval()


@final
@dataclass(frozen=True, slots=True)
class ConfigPlan:
    """What a config has to say.

    Attributes:
        values: key -> value for all layers.
        layers: number of a layer that is left -> key -> value.
        depths: key -> old numbers of the layers that are left.
        left_out: path of a stack of layers -> old numbers of those that are left, in order.
    """

    values: dict[str, int] = field(default_factory=dict)
    layers: dict[int, dict[str, int]] = field(default_factory=dict)
    depths: dict[str, tuple[int, ...]] = field(default_factory=dict)
    left_out: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def renamed(self, name: str) -> str:
        """The name of a tensor, its layer counted anew."""
        for stack, kept in self.left_out.items():
            match = _NUMBER.match(name, len(stack)) if name.startswith(f"{stack}.") else None
            if match is not None:
                return f"{stack}.{kept.index(int(match[1]))}{name[match.end() :]}"
        return name


def widths_by_layer(space: SearchSpace, widths: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """The widths of the first layer that each set of channels comes from: layers whose ratios are tied are one group.

    Args:
        space: of the network.
        widths: group -> {kept, of}.
    """
    found: dict[str, dict[str, int]] = {}
    for number, group in enumerate(space.groups):
        kept = int(widths[group.name]["kept"])
        for start, size in set_ranges(group):
            name = _first_layer(space, number, start, size) if group.sets else group.name
            found[name] = {"kept": size * kept // group.width, "of": size}
    return found


def _first_layer(space: SearchSpace, group: int, start: int, size: int) -> str:
    """What writes these channels of a group first."""
    for tensor in space.tensors:
        for dim, axis in enumerate(tensor.axes):
            if axis is None or dim in tensor.reads:
                continue
            channels = axis.channel[axis.group == group]
            if len(channels) and start <= int(channels[0]) < start + size:
                return tensor.name.rpartition(".")[0]
    return space.groups[group].name


def plan_of(network: Any, widths: Mapping[str, Mapping[str, int]]) -> ConfigPlan:
    """What a config has to say for a cut network.

    Args:
        network: with the config of the full one.
        widths: group -> {kept, of}.

    Raises:
        ExportError: a part of a layer was left out, or a group has no name in the config.
    """
    plan, config = ConfigPlan(), network.config
    _leave_out(plan, network, widths)
    found: dict[str, dict[str, int]] = {}
    for group, width in widths.items():
        if group.startswith("block:") or plan_drops(plan, group):
            continue
        key = _key(config, group, width["of"])
        if key is None:
            if width["kept"] != width["of"]:
                raise ExportError(
                    f"the config of {type(network).__name__} has no key for the width of {group!r}; {_ELSE}"
                )
            continue
        found.setdefault(key, {})[group] = width["kept"]
    for key, kept in found.items():
        if len(set(kept.values())) == 1:
            plan.values[key] = next(iter(kept.values()))
        else:
            for group, count in kept.items():
                plan.layers.setdefault(_layer(plan.renamed(group)), {})[key] = count
    _count_queries(plan, config)
    return plan


_ELSE = "take safetensors for autoprune.load, or module, which needs neither"


def plan_drops(plan: ConfigPlan, group: str) -> bool:
    """Whether the layer of a group was left out."""
    for stack, kept in plan.left_out.items():
        match = _NUMBER.match(group, len(stack)) if group.startswith(f"{stack}.") else None
        if match is not None and int(match[1]) not in kept:
            return True
    return False


def _leave_out(plan: ConfigPlan, network: Any, widths: Mapping[str, Mapping[str, int]]) -> None:
    gone = [
        group.removeprefix("block:")
        for group, width in widths.items()
        if group.startswith("block:") and not width["kept"]
    ]
    stacks = dict(_stacks(network))
    for block in gone:
        stack, _, number = block.rpartition(".")
        if stack not in stacks or not number.isdigit():
            raise ExportError(
                f"{block} was left out, which is a part of a layer, and a config only counts layers; {_ELSE}"
            )
    for stack, layers in stacks.items():
        kept = tuple(number for number, layer in enumerate(layers) if not isinstance(layer, Skip))
        if len(kept) < len(layers):
            plan.left_out[stack] = kept
            plan.depths[_depth_key(network.config, stack, len(layers))] = kept


def _stacks(network: nn.Module) -> Iterator[tuple[str, nn.ModuleList]]:
    """The lists of layers."""
    lists = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.ModuleList)]
    yield from ((name, module) for name, module in lists if not any(name.startswith(f"{other}.") for other, _ in lists))


def _depth_key(config: Any, stack: str, layers: int) -> str:
    side = "encoder" if "encoder" in stack else "decoder" if "decoder" in stack else ""
    for key in sorted(_DEPTH, key=lambda key: not (side and key.startswith(side))):
        if getattr(config, key, None) == layers:
            return key
    raise ExportError(f"layers of {stack} were left out, which the config does not count; {_ELSE}")


def _key(config: Any, group: str, full: int) -> str | None:
    """The key of a config that says the width of a group; None where there is none."""
    side = "encoder" if ".encoder." in f".{group}" else "decoder" if ".decoder." in f".{group}" else ""
    if side and "cross" in group:
        side = "decoder"
    attention = re.search(r"attn|attention", group) is not None
    if attention and _KEY_VALUE_HEADS in dir(config) and getattr(config, _KEY_VALUE_HEADS) == full:
        return _KEY_VALUE_HEADS
    keys = _HEADS if attention else _HIDDEN
    inner = attention or _NUMBER.search(group) is not None
    for key in sorted(keys, key=lambda key: not (side and key.startswith(side))) if inner else ():
        if key.startswith(("encoder", "decoder")) and side and not key.startswith(side):
            continue
        value = getattr(config, key, None)
        if value == full or (key == "n_inner" and value is None and hasattr(config, key)):
            return key
    return _WIDTH if getattr(config, _WIDTH, None) == full else None


def _layer(group: str) -> int:
    match = _NUMBER.search(group)
    return -1 if match is None else int(match[1])


def _count_queries(plan: ConfigPlan, config: Any) -> None:
    """Query heads go with their key and value heads, and the width of a head stays what it was."""
    full = getattr(config, _KEY_VALUE_HEADS, None)
    for values in (plan.values, *plan.layers.values()):
        if full and _KEY_VALUE_HEADS in values:
            values["num_attention_heads"] = config.num_attention_heads * values[_KEY_VALUE_HEADS] // full
    if hasattr(config, "head_dim") or _KEY_VALUE_HEADS in vars(config):
        plan.values["head_dim"] = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the library's progress bars, which are as they were afterwards."""
    logging = importlib.import_module("transformers.utils.logging")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _built(network: Any, plan: ConfigPlan) -> Any:
    """A network of the same class, built by a config of the plan."""
    config = copy.deepcopy(network.config)
    for key, kept in plan.depths.items():
        for name, value in list(vars(config).items()):
            if isinstance(value, list) and len(value) == getattr(config, key) and name != "architectures":
                setattr(config, name, [value[number] for number in kept])  # what is said of each layer
        setattr(config, key, len(kept))
    for key, value in plan.values.items():
        setattr(config, key, value)
    layers = dict(sorted(plan.layers.items()))
    if layers:
        if -1 in layers or not hasattr(type(config), "per_layer_config"):
            raise ExportError(f"its widths differ: {_differing(plan)}, for which this config has no place; {_ELSE}")
        config.per_layer_config = layers
    failing, then = "transformers builds no network of these widths", f"T{_ELSE[1:]}."
    if layers:
        name = type(network).__name__
        failing = f"its layers differ ({_differing(plan)}), and {name} of this transformers has one width for all"
        then = f"T{_ELSE[1:]}; or search with the space option per: model."
    with blame(ExportError, failing, then=then), seeded(0):
        made = type(network)(config)
    return made.eval()


def _check_shapes(made: nn.Module, weights: Mapping[str, Tensor], plan: ConfigPlan) -> None:
    """Raise ExportError unless what was built is of the shapes that were searched."""
    own = made.state_dict()
    wrong = sorted(set(own) ^ set(weights)) or [name for name in own if own[name].shape != weights[name].shape]
    if not wrong:
        return
    name = wrong[0]
    one, other = (tuple(found[name].shape) if name in found else "nothing" for found in (own, weights))
    said = plan.values | {key: len(kept) for key, kept in plan.depths.items()}
    told = ", ".join(f"{key}: {value}" for key, value in said.items())
    raise ExportError(
        f"its widths do not fit into a config: with {told}, transformers has {one} for {name}, and the network "
        f"{other}; {_ELSE}"
    )


def _differing(plan: ConfigPlan) -> str:
    keys = sorted({key for values in plan.layers.values() for key in values})
    return "; ".join(f"{key} {[values.get(key) for _, values in sorted(plan.layers.items())]}" for key in keys)
