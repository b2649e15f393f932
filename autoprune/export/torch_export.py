"""A program of `torch.export`: the graph and the weights in one file that PyTorch alone runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import torch

from autoprune.export.base import Exporter, ExportSource, WrittenFiles
from autoprune.export.program import exported, quiet

_FILE = "model.pt2"


@final
class TorchExport(Exporter):
    """Writes `model.pt2`; `torch.export.load("model.pt2").module()` is called as the network is.

    In evaluation mode, for the shapes of the example and batches of any size where the graph allows it.
    """

    def write(self, source: ExportSource, folder: Path) -> WrittenFiles:
        """Write the program.

        Raises:
            ExportError: `torch.export` refuses the network.
        """
        made = exported(source)
        with quiet():
            torch.export.save(made.program, folder / _FILE)
        return WrittenFiles((folder / _FILE,), made.any_batch)

    def read(self, folder: Path) -> Callable[..., Any]:
        """The program as a module."""
        with quiet():
            return torch.export.load(folder / _FILE).module()
