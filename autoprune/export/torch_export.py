"""A program of `torch.export`: the graph and the weights in one file that PyTorch alone runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import torch

from autoprune.errors import ExportError
from autoprune.export.base import Exporter, ExportSource, WrittenFiles
from autoprune.export.program import exported, quiet
from autoprune.texts import first_line

_FILE = "model.pt2"
_USAGE = f'network = torch.export.load("{_FILE}").module()'


@final
class TorchExport(Exporter):
    """Writes `model.pt2`; `torch.export.load("model.pt2").module()` is called as the network is.

    Outputs of a class of the model's library come as dict or tuple, so that the library is not needed.
    In evaluation mode, for the shapes of the example and batches of any size where the graph allows it.
    """

    def write(self, source: ExportSource, folder: Path) -> WrittenFiles:
        """Write the program.

        Raises:
            ExportError: `torch.export` refuses the network, or has no text for a class of its inputs or outputs.
        """
        made = exported(source)
        try:
            with quiet():
                torch.export.save(made.program, folder / _FILE)
        except Exception as error:
            raise ExportError(
                f"torch.export cannot save this {type(source.network).__name__} ({type(error).__name__}: "
                f"{first_line(error)}); take the format module or onnx, or let forward return tuples or mappings"
            ) from error
        return WrittenFiles((folder / _FILE,), made.any_batch, _USAGE)

    def read(self, folder: Path) -> Callable[..., Any]:
        """The program as a module."""
        with quiet():
            return torch.export.load(folder / _FILE).module()
