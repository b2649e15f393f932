"""Plain text for the architecture, safetensors for the weights: what a run writes, and `autoprune.load` reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import final

import yaml
from safetensors.torch import save

from autoprune.export.base import Exporter, ExportSource, WrittenFiles
from autoprune.files import write_whole

PYTHON_MODEL = "given in Python"
"""Stands for the factory of a model that was handed over as an object."""

ARCHITECTURE, WEIGHTS = "architecture.yaml", "model.safetensors"

_HEADER = """\
# A network found by autoprune. Rebuild it, weights included, with
#
#   import autoprune
#   model = autoprune.load("this folder"){hint}
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
        rebuildable = source.architecture["model"]["factory"] != PYTHON_MODEL
        header = _HEADER.format(
            hint="" if rebuildable else "  # give the full model too: load(folder, model=full_model)"
        )
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
