"""A plain Python module: the graph of the network as code, and its weights; autoprune is not needed to run it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from safetensors.torch import save_file

from autoprune.export.base import Exporter, ExportSource, WrittenFiles
from autoprune.export.graph_code import written
from autoprune.export.program import exported

_FOLDER, _CODE, _WEIGHTS = "module", "model.py", "model.safetensors"
_USAGE = "from module.model import build; network = build()"


@final
class PlainModule(Exporter):
    """Writes `module/model.py` and `module/model.safetensors`; `model.build()` returns the network.

    The code is the graph of `torch.export` in evaluation mode, one line per operator, over tensors of the original
    names. It needs torch and safetensors, and a package whose own operators the graph calls; neither autoprune nor the
    model's class. It runs on any device and can be trained on, norms with their statistics as they are.
    """

    def write(self, source: ExportSource, folder: Path) -> WrittenFiles:
        """Write the code and the weights.

        Raises:
            ExportError: `torch.export` refuses the network, or its graph holds what is no plain code.
        """
        made = exported(source)
        code, tensors = written(made, source)
        place = folder / _FOLDER
        place.mkdir()
        (place / _CODE).write_text(code)
        save_file(tensors, place / _WEIGHTS)
        return WrittenFiles((place / _CODE, place / _WEIGHTS), made.any_batch, _USAGE)

    def read(self, folder: Path) -> Callable[..., Any]:
        """The network that the written code builds."""
        path = folder / _FOLDER / _CODE
        spec = importlib.util.spec_from_file_location("autoprune_written_model", path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is no module")
        module = importlib.util.module_from_spec(spec)
        exec(compile(path.read_text(), str(path), "exec"), vars(module))  # leaves no __pycache__
        network: Callable[..., Any] = module.build()
        return network
