"""The searched network as plain text and weights, and back without pickle.

`architecture.yaml` holds the widths by group, what they cost and how to rebuild the network; `space.json` which index
of which tensor belongs to which group; `model.safetensors` the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch import nn

from autoprune.errors import RunError
from autoprune.randomness import seeded
from autoprune.space.groups import SearchSpace
from autoprune.space.serial import from_json, to_json
from autoprune.space.slicing import slice_model
from autoprune.verdict.finals import save_weights
from autoprune.verdict.record import RunRecord
from autoprune.zoo import build_model, load_weights

_FORMAT = 1
_EXPORT_ANEW = "export the run anew: autoprune export RUN --to FOLDER"
_HEADER = """\
# A network found by autoprune. Rebuild it, weights included, with
#
#   import autoprune
#   model = autoprune.load("{folder}"){hint}
#
# `widths` are kept channels per width group, of how many. FLOPs count one multiply-add as one.
"""


def write_architecture(record: RunRecord, network: nn.Module, folder: Path) -> Path:
    """Write `architecture.yaml`, `space.json` and `model.safetensors` of the winner.

    Args:
        record: the finished run.
        network: the winner with the weights to export; only read.
        folder: made if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    winner, model = record.winner, record.job["model"]
    rebuildable = model["factory"] != PYTHON_MODEL
    text = {
        "format": _FORMAT,
        "model": {"factory": model["factory"], "arguments": model["arguments"]},
        "widths": {
            group.name: {"kept": int(width), "of": group.width}
            for group, width in zip(record.space.groups, winner.widths, strict=True)
        },
        "costs": {name: _plain(cost) for name, cost in winner.costs.items()},
        "full_costs": {name: _plain(cost) for name, cost in record.full_costs.items()},
        "verdict": record.verdict.sentence if record.verdict else None,
    }
    hint = "" if rebuildable else "  # give the full model too: load(folder, model=full_model)"
    header = _HEADER.format(folder=folder.name, hint=hint)
    (folder / "architecture.yaml").write_text(header + yaml.safe_dump(text, sort_keys=False, allow_unicode=True))
    (folder / "space.json").write_text(json.dumps(to_json(record.space)))
    save_weights(network, folder / "model.safetensors")
    return folder


PYTHON_MODEL = "given in Python"
"""Stands for the factory of a model that was handed over as an object."""


def load(folder: Path | str, *, model: nn.Module | None = None) -> nn.Module:
    """Rebuild an exported network, in evaluation mode.

    Args:
        folder: what `write_architecture` wrote.
        model: the full network, for an export whose model was handed over in Python; only read.

    Raises:
        RunError: a file is missing or damaged, or the full network is needed and not given.
    """
    folder = Path(folder)
    description = _read(folder / "architecture.yaml")
    space = from_json(_read(folder / "space.json"))
    widths = space.check(_widths(description, space, folder))
    full = model if model is not None else _full_model(description, folder)
    in_order = tuple(np.arange(group.width) for group in space.groups)  # any ranking: the weights are loaded next
    network = slice_model(full, space, widths, in_order)
    load_weights(network, folder / "model.safetensors")
    return network.eval()


def _full_model(description: Mapping[str, Any], folder: Path) -> nn.Module:
    try:
        factory, arguments = description["model"]["factory"], description["model"]["arguments"]
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder}/architecture.yaml does not say how to build the model; {_EXPORT_ANEW}") from error
    if factory == PYTHON_MODEL:
        raise RunError(
            f"the network in {folder} was searched from a model object: build that full model and call "
            f"autoprune.load({str(folder)!r}, model=full_model)"
        )
    with seeded(0):  # the initial weights are replaced; the global generators stay as they are
        return build_model(factory, arguments)


def _widths(description: Mapping[str, Any], space: SearchSpace, folder: Path) -> list[int]:
    if description.get("format") != _FORMAT:
        raise RunError(
            f"{folder}/architecture.yaml has format {description.get('format')!r}, this version reads {_FORMAT}; "
            f"{_EXPORT_ANEW}"
        )
    try:
        kept = {str(name): int(entry["kept"]) for name, entry in description["widths"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{folder}/architecture.yaml does not hold widths by group; {_EXPORT_ANEW}") from error
    names = {group.name for group in space.groups}
    if kept.keys() != names:
        raise RunError(
            f"{folder}/architecture.yaml and space.json name different width groups: "
            f"{', '.join(sorted(kept.keys() ^ names)[:3])}; {_EXPORT_ANEW}"
        )
    return [kept[group.name] for group in space.groups]


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
        data = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}; give the folder of an export") from error
    except (yaml.YAMLError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}); {_EXPORT_ANEW}") from error
    if not isinstance(data, dict):
        raise RunError(f"{path} is damaged (it holds a {type(data).__name__}, not keys and values); {_EXPORT_ANEW}")
    return data


def _plain(cost: float) -> int | float:
    return int(cost) if float(cost).is_integer() else float(cost)
