"""The searched network as plain text and weights, and back without pickle.

`architecture.yaml` holds the widths by group, what they cost and how to rebuild the network; `space.json` which index
of which tensor belongs to which group, the rank of each channel and, where the network runs as its traced graph, what
was traced; `model.safetensors` the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from autoprune.errors import ExportError, RunError, blame
from autoprune.export.base import Description, ExportSource
from autoprune.export.factories import check_packages
from autoprune.export.inputs import describe
from autoprune.export.reading import EXPORT_ANEW, read_data
from autoprune.export.rebuilding import FORMAT, full_model, in_order, kept_widths, load_alone, read_architecture
from autoprune.export.safetensors import PYTHON_MODEL, Safetensors
from autoprune.files import make_folder
from autoprune.space.cutting.masks import masks_from_zeros
from autoprune.space.cutting.rounded import keep_bits
from autoprune.space.cutting.slicing import Ranking, slice_model
from autoprune.space.groups import SearchSpace
from autoprune.space.options.ties import set_ranges
from autoprune.space.origin import Origin, full_network
from autoprune.space.serial import from_json, to_json
from autoprune.space.tracing.program import Example
from autoprune.texts import printable
from autoprune.verdict.record import Arm, RunRecord
from autoprune.zoo import load_weights
from autoprune.zoo.hugging_face import described
from autoprune.zoo.weights import read_weights

__all__ = ["PYTHON_MODEL", "load", "read_source", "write_architecture"]


def write_architecture(
    record: RunRecord,
    network: nn.Module,
    folder: Path,
    *,
    ranking: Ranking,
    arm: Arm | None = None,
    origin: Origin | None = None,
    example: Example | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write `architecture.yaml`, `space.json` and `model.safetensors` of one network.

    Args:
        record: the finished run.
        network: with the weights to export; only read.
        folder: made if it is missing.
        ranking: which channels it keeps: some buffers are cut but are in no state dict.
        arm: which of the networks compared; None: the winner.
        origin: what the graph was traced from, for a space of graph form.
        example: what the network is called with, for other formats later on.
        note: told when it waits for room on the disk.
    """
    make_folder(folder, note=note)
    chosen, model = arm or record.winner, record.job["model"]
    architecture: dict[str, Any] = {
        "format": FORMAT,
        "model": described(network, model["factory"], model["arguments"]),
        "widths": {
            group.name: {"kept": int(width), "of": group.width}
            for group, width in zip(record.space.groups, chosen.widths, strict=True)
        },
        "form": record.space.form,
        "costs": {name: _plain(cost) for name, cost in chosen.costs.items()},
        "full_costs": {name: _plain(cost) for name, cost in record.full_costs.items()},
        "verdict": record.verdict.sentence if record.verdict else None,
        **({} if arm is None else {"arm": arm.name}),
    }
    inputs = _described(example)
    if inputs is not None:
        architecture |= {"space": record.job.get("space") or {}, "inputs": inputs}
    told = [] if record.space.densities else [ranks.tolist() for ranks in ranking]  # the zeros of the weights tell
    space = to_json(record.space, origin=origin) | {"ranking": told, "inputs": inputs}
    source = ExportSource(architecture, space, network.state_dict(), lambda: network, lambda: inputs or {})
    Safetensors().write(source, folder, note=note)
    return folder


def read_source(
    folder: Path,
    *,
    model: nn.Module | None,
    example: Callable[[], Example],
    packages: Sequence[str] = (),
    trust: bool = False,
) -> ExportSource:
    """An exported network, for other formats.

    Args:
        folder: what `write_architecture` wrote.
        model: the full network, for an export whose model was handed over in Python; only read.
        example: what the network is called with, for exports that do not say so.
        packages: as for `load`.
        trust: as for `load`.

    Raises:
        RunError: a file is missing or damaged.
    """
    check_packages(packages)
    space = read_data(folder / "space.json")
    known = space.get("inputs") or (space.get("origin") or {}).get("example")
    return ExportSource(
        read_architecture(folder / "architecture.yaml"),
        space,
        read_weights(folder / "model.safetensors"),
        lambda: load(folder, model=model, packages=packages, trust=trust),
        lambda: known or describe(example()),
    )


def _described(example: Example | None) -> Description | None:
    """None where nobody can say it: only other formats need it."""
    try:
        return None if example is None else describe(example)
    except ExportError:
        return None


def load(
    folder: Path | str, *, model: nn.Module | None = None, packages: Sequence[str] = (), trust: bool = False
) -> nn.Module:
    """Rebuild an exported network, in evaluation mode.

    It is of the model's own class, or, where the search could cut the model only as its traced graph, a network that
    runs this graph; the model is then traced once more, and the example inputs may not differ but in the batch size.

    An export names the function that builds its network. Only code of the zoo, torchvision, timm, transformers and
    `packages` is called, with plain arguments; libraries get none that fetch weights or read files.

    Args:
        folder: what `write_architecture` wrote; or its `architecture.yaml` alone, for the network with new weights.
        model: the full network, for an export whose model was handed over in Python; only read.
        packages: whose functions may build the network, besides those.
        trust: whatever the export names may run. Only for files whose maker you know.

    Raises:
        RunError: a file is missing or damaged, it names code that is not trusted, the full network is needed and not
            given, or it is traced to another graph than the one that was searched.
    """
    path = Path(folder)
    check_packages(packages)
    if path.is_file():
        return load_alone(path, model=model, packages=packages, trust=trust).eval()
    description = read_architecture(path / "architecture.yaml")
    if not (path / "space.json").exists() and "inputs" in description:
        network = load_alone(path / "architecture.yaml", model=model, packages=packages, trust=trust, weights=True)
        load_weights(network, path / "model.safetensors")
        masks_from_zeros(network)
        keep_bits(network)
        return network.eval()
    data = read_data(path / "space.json")
    with blame(RunError, f"{path}/space.json does not fit together", then=f"Is it damaged? {EXPORT_ANEW}"):
        space = from_json(data)
        widths = space.check(kept_widths(description, space, path / "architecture.yaml"))
        ranking = _ranking(data, space, path)
    full = full_model(description, path / "architecture.yaml", model=model, space=space, packages=packages, trust=trust)
    with blame(RunError, f"{path} does not fit this {type(full).__name__}", then=f"Is it damaged? {EXPORT_ANEW}"):
        network = slice_model(full_network(full, space, data.get("origin")), space, widths, ranking)
    load_weights(network, path / "model.safetensors")
    masks_from_zeros(network)
    keep_bits(network)
    return network.eval()


def _ranking(data: Mapping[str, Any], space: SearchSpace, folder: Path) -> Ranking:
    """The ranks as they were stored; exports of format 1 have none and, as their weights are loaded, need none."""
    if space.densities:
        return tuple(in_order(group) for group in space.groups)
    stored = data.get("ranking") or [range(group.width) for group in space.groups]
    try:
        ranking = tuple(np.array(ranks, dtype=np.int64) for ranks in stored)
        whole = all(type(rank) is int for ranks in stored for rank in ranks)
    except (TypeError, ValueError, OverflowError):
        ranking, whole = (), False
    if not whole or [ranks.shape for ranks in ranking] != [(group.slots,) for group in space.groups]:
        raise RunError(f"{folder}/space.json does not rank the channels of every group; {EXPORT_ANEW}")
    for ranks, group in zip(ranking, space.groups, strict=True):
        for start, size in set_ranges(group):
            if (np.sort(ranks[start : start + size]) != np.arange(size) * group.width // size).any():
                name = printable(group.name, 100)
                raise RunError(f"{folder}/space.json does not rank each channel of {name!r} once; {EXPORT_ANEW}")
    return ranking


def _plain(cost: float) -> int | float:
    return int(cost) if float(cost).is_integer() else float(cost)
