"""The searched network as plain text and weights, and back without pickle.

`architecture.yaml` holds the widths by group, what they cost and how to rebuild the network; `space.json` which index
of which tensor belongs to which group, the rank of each channel and, where the network runs as its traced graph, what
was traced; `model.safetensors` the weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch import nn

from autoprune.config.environment import expanded
from autoprune.errors import ExportError, RunError
from autoprune.export.base import Description, ExportSource
from autoprune.export.inputs import describe
from autoprune.export.safetensors import PYTHON_MODEL, Safetensors
from autoprune.files import make_folder
from autoprune.randomness import seeded
from autoprune.space.cutting.slicing import Ranking, slice_model
from autoprune.space.groups import SearchSpace
from autoprune.space.origin import Origin, full_network
from autoprune.space.serial import from_json, to_json
from autoprune.space.tracing.program import Example
from autoprune.verdict.record import RunRecord
from autoprune.zoo import build_model, load_weights
from autoprune.zoo.weights import read_weights

__all__ = ["PYTHON_MODEL", "load", "read_source", "write_architecture"]

_FORMAT = 1
_EXPORT_ANEW = "export the run anew: autoprune export RUN --to FOLDER"


def write_architecture(
    record: RunRecord,
    network: nn.Module,
    folder: Path,
    *,
    ranking: Ranking,
    origin: Origin | None = None,
    example: Example | None = None,
) -> Path:
    """Write `architecture.yaml`, `space.json` and `model.safetensors` of the winner.

    Args:
        record: the finished run.
        network: the winner with the weights to export; only read.
        folder: made if it is missing.
        ranking: which channels the winner keeps: some buffers are cut but are in no state dict.
        origin: what the graph was traced from, for a space of graph form.
        example: what the network is called with, for other formats later on.
    """
    make_folder(folder)
    winner, model = record.winner, record.job["model"]
    architecture = {
        "format": _FORMAT,
        "model": {"factory": model["factory"], "arguments": model["arguments"]},
        "widths": {
            group.name: {"kept": int(width), "of": group.width}
            for group, width in zip(record.space.groups, winner.widths, strict=True)
        },
        "form": record.space.form,
        "costs": {name: _plain(cost) for name, cost in winner.costs.items()},
        "full_costs": {name: _plain(cost) for name, cost in record.full_costs.items()},
        "verdict": record.verdict.sentence if record.verdict else None,
    }
    inputs = _described(example)
    space = to_json(record.space, origin=origin) | {"ranking": [ranks.tolist() for ranks in ranking], "inputs": inputs}
    Safetensors().write(
        ExportSource(architecture, space, network.state_dict(), lambda: network, lambda: inputs or {}), folder
    )
    return folder


def read_source(folder: Path, *, model: nn.Module | None, example: Callable[[], Example]) -> ExportSource:
    """An exported network, for other formats.

    Args:
        folder: what `write_architecture` wrote.
        model: the full network, for an export whose model was handed over in Python; only read.
        example: what the network is called with, for exports that do not say so.

    Raises:
        RunError: a file is missing or damaged.
    """
    space = _read(folder / "space.json")
    known = space.get("inputs") or (space.get("origin") or {}).get("example")
    return ExportSource(
        _read(folder / "architecture.yaml"),
        space,
        read_weights(folder / "model.safetensors"),
        lambda: load(folder, model=model),
        lambda: known or describe(example()),
    )


def _described(example: Example | None) -> Description | None:
    """None where nobody can say it: only other formats need it."""
    try:
        return None if example is None else describe(example)
    except ExportError:
        return None


def load(folder: Path | str, *, model: nn.Module | None = None) -> nn.Module:
    """Rebuild an exported network, in evaluation mode.

    It is of the model's own class, or, where the search could cut the model only as its traced graph, a network that
    runs this graph; the model is then traced once more, and the example inputs may not differ but in the batch size.

    Args:
        folder: what `write_architecture` wrote.
        model: the full network, for an export whose model was handed over in Python; only read.

    Raises:
        RunError: a file is missing or damaged, the full network is needed and not given, or it is traced to another
            graph than the one that was searched.
    """
    folder = Path(folder)
    description = _read(folder / "architecture.yaml")
    data = _read(folder / "space.json")
    space = from_json(data)
    widths = space.check(_widths(description, space, folder))
    given = model if model is not None else _full_model(description, folder)
    full = full_network(given, space, data.get("origin"))
    network = slice_model(full, space, widths, _ranking(data, space, folder))
    load_weights(network, folder / "model.safetensors")
    return network.eval()


def _ranking(data: Mapping[str, Any], space: SearchSpace, folder: Path) -> Ranking:
    """The ranks as they were stored; exports of format 1 have none and, as their weights are loaded, need none."""
    stored = data.get("ranking") or [range(group.width) for group in space.groups]
    try:
        ranking = tuple(np.array(ranks, dtype=np.int64) for ranks in stored)
    except (TypeError, ValueError):
        ranking = ()
    if [ranks.shape for ranks in ranking] != [(group.slots,) for group in space.groups]:
        raise RunError(f"{folder}/space.json does not rank the channels of every group; {_EXPORT_ANEW}")
    return ranking


def _full_model(description: Mapping[str, Any], folder: Path) -> nn.Module:
    try:
        factory, arguments = description["model"]["factory"], description["model"]["arguments"]
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder}/architecture.yaml does not say how to build the model; {_EXPORT_ANEW}") from error
    if factory == PYTHON_MODEL:
        raise RunError(
            f"the network in {folder} was searched from a model object: build that full model and call "
            f"autoprune.load({str(folder)!r}, model=full_model); for other formats, save(folder, formats=[…]) of the "
            f"search's result, which resume=True gives again"
        )
    (factory, arguments), _ = expanded((factory, arguments), f"{folder}/architecture.yaml")
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
