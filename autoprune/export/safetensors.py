"""Plain text for the architecture, safetensors for the weights: what a run writes, and `autoprune.load` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import yaml
from safetensors.torch import save

from autoprune.export.base import Exporter, ExportSource, WrittenFiles
from autoprune.export.factories import is_nameable, own_package
from autoprune.export.reading import read_data
from autoprune.files import write_whole

PYTHON_MODEL = "given in Python"
"""Stands for the factory of a model that was handed over as an object."""

ARCHITECTURE, WEIGHTS = "architecture.yaml", "model.safetensors"

_HEADER = """\
# A network found by autoprune. Rebuild it, weights included, with
#
#   import autoprune
#   model = {call}
#
# `widths` are kept channels per width group, of how many. FLOPs count one multiply-add as one.
"""


@final
class Safetensors(Exporter):
    """Writes `architecture.yaml`, `space.json` and `model.safetensors`; needs no model."""

    def write(
        self, source: ExportSource, folder: Path, *, note: Callable[[str], None] = lambda line: None
    ) -> WrittenFiles:
        """Write the three files; tied tensors under each of their names; `note` is told when it waits for room.

        Raises:
            RunError: the folder cannot be written.
        """
        header = _HEADER.format(call=_call("this folder", str(source.architecture["model"]["factory"])))
        text = yaml.safe_dump(dict(source.architecture), sort_keys=False, allow_unicode=True)
        weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in source.weights.items()}
        written = {
            ARCHITECTURE: (header + text).encode(),
            "space.json": json.dumps(source.space).encode(),
            WEIGHTS: bytes(save(weights)),
        }
        for name, content in written.items():
            write_whole(folder / name, content, note=note)
        return WrittenFiles(tuple(folder / name for name in written))


def loading(folder: Path, *, shown: Path, packages: Sequence[str] = (), trust: bool = False) -> str:
    """The call that loads what was exported to a folder; empty where only other formats are in it.

    Args:
        folder: what was written.
        shown: as the call names it.
        packages: whose functions the export was allowed to call.
        trust: it was allowed to call any.
    """
    if not (folder / ARCHITECTURE).is_file():
        return ""
    factory = read_data(folder / ARCHITECTURE)["model"]["factory"]
    return _call(str(shown), factory, packages=packages, trust=trust)


def _call(folder: str, factory: str, *, packages: Sequence[str] = (), trust: bool = False) -> str:
    if factory == PYTHON_MODEL:
        return f"autoprune.load({folder!r}, model=full_model)"
    needed = own_package(factory)
    if needed is None:
        return f"autoprune.load({folder!r})"
    if trust or not is_nameable(needed):
        return f"autoprune.load({folder!r}, trust=True)"
    return f"autoprune.load({folder!r}, packages={list(packages) or [needed]!r})"
