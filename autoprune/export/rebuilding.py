"""What `architecture.yaml` says, checked, and the network rebuilt from it alone by tracing its full model anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from autoprune.config.environment import expanded
from autoprune.config.space import SpaceOptions
from autoprune.config.validation import validated
from autoprune.errors import RunError, blame
from autoprune.export.building import built
from autoprune.export.factories import trusted_factory
from autoprune.export.inputs import drawn
from autoprune.export.reading import EXPORT_ANEW, damaged, read_data
from autoprune.export.safetensors import PYTHON_MODEL
from autoprune.space.cutting.slicing import slice_model
from autoprune.space.groups import IntArray, SearchSpace, WidthGroup
from autoprune.space.options.ties import rank_slots
from autoprune.space.tracing.program import Example
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import Verified, unverified, verify
from autoprune.texts import printable

FORMAT = 1
"""Of `architecture.yaml`."""


def read_architecture(path: Path) -> dict[str, Any]:
    """The file as keys and values; those that rebuild a network are checked.

    Raises:
        RunError: it is missing or damaged, or of another format.
    """
    data = read_data(path)
    if type(data.get("format")) is not int or data["format"] != FORMAT:
        found = printable(repr(data.get("format")), 60)
        raise RunError(f"{path} has format {found}, this version reads {FORMAT}; {EXPORT_ANEW}")
    model = data.get("model")
    if not isinstance(model, dict) or not {"factory", "arguments"} <= model.keys():
        raise RunError(f"{path} does not say how to build the model; {EXPORT_ANEW}")
    if not isinstance(data.get("widths"), dict):
        raise RunError(f"{path} does not hold widths by group; {EXPORT_ANEW}")
    for name, entry in data["widths"].items():
        numbers = [entry.get("kept"), entry.get("of")] if isinstance(entry, dict) else [None]
        if not isinstance(name, str) or any(type(n) is not int or not 0 <= n < 2**31 for n in numbers):
            shown = printable(f"{name}: {entry}", 100)
            raise RunError(f"{path} does not hold widths by group ({shown}; write kept and of); {EXPORT_ANEW}")
    if data.get("form", "module") not in ("module", "graph"):
        raise damaged(path, f"form must be module or graph, got {data['form']!r}")
    return data


def kept_widths(description: Mapping[str, Any], space: SearchSpace, path: Path) -> list[int]:
    """The widths of `architecture.yaml`, in the order of the groups.

    Raises:
        RunError: they are of other groups.
    """
    wrong = _differences(description, space)
    if wrong:
        raise RunError(f"{path} and space.json do not belong together: {wrong}; {EXPORT_ANEW}")
    return [description["widths"][group.name]["kept"] for group in space.groups]


def full_model(
    description: Mapping[str, Any],
    path: Path,
    *,
    model: nn.Module | None,
    space: SearchSpace | None,
    packages: Sequence[str],
    trust: bool,
) -> nn.Module:
    """The full network that an export was cut from: the one that is given, or built as the export says.

    Raises:
        RunError: it is needed and not given, or is built by code that is not trusted.
    """
    if model is not None:
        return model
    factory, arguments = description["model"]["factory"], description["model"]["arguments"]
    if factory == PYTHON_MODEL:
        raise RunError(
            f"the network in {path.parent} was searched from a model object: build that full model and call "
            f"autoprune.load({str(path.parent)!r}, model=full_model); for other formats, save(folder, formats=[…]) of "
            f"the search's result, which resume=True gives again"
        )
    (factory, arguments), _ = expanded((factory, arguments), str(path))
    made, keywords = trusted_factory(factory, arguments, packages=packages, trust=trust, source=str(path))
    return built(made, keywords, name=factory, space=space, source=str(path), limited=not trust)


def load_alone(
    path: Path,
    *,
    model: nn.Module | None = None,
    packages: Sequence[str] = (),
    trust: bool = False,
    weights: bool = False,
) -> nn.Module:
    """The network of an `architecture.yaml`, which needs no other file: its full model is traced anew.

    Args:
        path: the file.
        model: the full network, where the file does not say how to build it; only read.
        packages: as for `load`.
        trust: as for `load`.
        weights: those of the export are put in; tensors that are in no state dict must then be those of the search.

    Raises:
        RunError: the file is damaged or of an older version, or the model is traced to other groups.
    """
    description = read_architecture(path)
    if "inputs" not in description:
        raise RunError(
            f"{path} does not say what its network is called with, as versions before 0.2 did not: load the whole "
            f"folder with its space.json and model.safetensors, or {EXPORT_ANEW}"
        )
    full = full_model(description, path, model=model, space=None, packages=packages, trust=trust)
    options = validated(SpaceOptions, description.get("space") or {}, f"{path}: space")
    with blame(RunError, f"{path} does not fit this {type(full).__name__}", then=f"Is it damaged? {EXPORT_ANEW}"):
        example = drawn(description["inputs"], seed=0)
        found = _traced(description, full, example, options, path)
        space = found.space
        widths = space.check([description["widths"][group.name]["kept"] for group in space.groups])
        network = slice_model(found.network, space, widths, tuple(map(in_order, space.groups)))
    hidden = [t.name for t in space.tensors if any(t.axes) and t.name not in full.state_dict()]
    if weights and hidden:
        raise RunError(f"{path.parent}: {hidden[0]} is in no weights file, so that space.json is needed; {EXPORT_ANEW}")
    return network


def _traced(
    description: Mapping[str, Any], full: nn.Module, example: Example, options: SpaceOptions, path: Path
) -> Verified:
    """The space that the file tells of, traced anew; verified only where that is what makes it so."""
    traced = trace(full, example, options=options)
    found = unverified(full, traced)
    if _differences(description, found.space):
        found = verify(full, traced)
        wrong = _differences(description, found.space)
        if wrong:
            raise RunError(
                f"{path}: this {type(full).__name__} is traced to other groups than the network that was searched "
                f"({wrong}): restore the code of the model as it was then, or load the whole folder with its space.json"
            )
    return found


def _differences(description: Mapping[str, Any], space: SearchSpace) -> str:
    """What the file says otherwise than a space; empty where they agree."""
    told, form = description["widths"], description.get("form", "module")
    names = {group.name for group in space.groups}
    if told.keys() != names:
        differing = sorted(told.keys() ^ names)
        return f"width groups {', '.join(printable(name, 60) for name in differing[:3])}{', …' * (len(differing) > 3)}"
    for group in space.groups:
        if told[group.name].get("of", group.width) != group.width:
            return f"{printable(group.name, 60)} has {group.width} channels, not {told[group.name]['of']}"
    return "" if form == space.form else f"it is cut as a {space.form}, not a {form}"


def in_order(group: WidthGroup) -> IntArray:
    """The first channels of each set are kept."""
    return rank_slots(group, -np.arange(group.slots, dtype=np.float64))
