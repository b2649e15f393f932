"""ONNX, from the program of `torch.export`, checked by ONNX Runtime."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from autoprune.errors import ConfigError, ExportError
from autoprune.export.base import Exporter, ExportSource, WrittenFiles
from autoprune.export.inputs import places, tensors_of
from autoprune.export.program import Exported, exported, leaves, quiet
from autoprune.texts import first_line

_FILE, _WEIGHTS = "model.onnx", "model.onnx.data"
_ONE_FILE = 1_500_000_000  # bytes; a protocol buffer ends at 2 GiB
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@final
class Onnx(Exporter):
    """Writes `model.onnx`, with the names of `forward` for the inputs and `batch` for their first dimension.

    Args:
        opset: version of the operators; None: that of the installed PyTorch.
    """

    def __init__(self, *, opset: int | None = None) -> None:
        if opset is not None and (isinstance(opset, bool) or not isinstance(opset, int) or opset < 1):
            raise ConfigError(f"exporter 'onnx': opset must be a whole number of at least 1, got {opset!r}")
        self._opset = opset

    def write(self, source: ExportSource, folder: Path) -> WrittenFiles:
        """Write the file, and weights of more than 1.5 GB beside it.

        Raises:
            ExportError: a package is missing, or the network cannot be translated.
        """
        for package in _PACKAGES:
            _imported(package)
        made = exported(source)
        names = [_name(place) for place, value in leaves(made, source) if isinstance(value, torch.Tensor)]
        try:
            with quiet(), torch.no_grad():
                program: Any = torch.onnx.export(
                    made.program, (), dynamo=True, optimize=True, opset_version=self._opset, input_names=names
                )
                program.rename_axes(_batch_axes(made))
                large = sum(tensor.nbytes for tensor in source.weights.values()) > _ONE_FILE
                program.save(folder / _FILE, external_data=large)
        except Exception as error:
            raise ExportError(
                f"torch.onnx cannot translate this {type(source.network).__name__} ({type(error).__name__}: "
                f"{first_line(error)}); take the format torch_export or module"
            ) from error
        return WrittenFiles(
            tuple(path for name in (_FILE, _WEIGHTS) if (path := folder / name).exists()), made.any_batch
        )

    def read(self, folder: Path) -> Callable[..., Any]:
        """A session of ONNX Runtime on the CPU; returns the output tensors in a list."""
        runtime = _imported("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, torch.get_num_threads()
        session = runtime.InferenceSession(str(folder / _FILE), options, providers=["CPUExecutionProvider"])
        names = [taken.name for taken in session.get_inputs()]

        def call(*args: Any, **kwargs: Any) -> list[torch.Tensor]:
            given = dict(zip(names, tensors_of(args), strict=False))
            for name, value in kwargs.items():
                given |= {_name(p): part for p, part in places(name, value) if isinstance(part, torch.Tensor)}
            arrays = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in given.items()}
            return [torch.from_numpy(np.asarray(made)) for made in session.run(None, arrays)]

        return call


def _name(place: str) -> str:
    """`batch['mask']` -> `batch_mask`."""
    return re.sub(r"\W+", "_", place).strip("_")


def _imported(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ExportError(
            f"the format onnx needs the package {package}, which is not installed ({error}); run: "
            f"pip install 'autoprune[onnx]'"
        ) from error


def _batch_axes(made: Exported) -> dict[str, str]:
    """The symbol of the first dimension of the inputs -> "batch"."""
    symbols: dict[str, str] = {}
    for node in made.program.graph.nodes:
        value = node.meta.get("val") if node.name in made.program.graph_signature.user_inputs else None
        if isinstance(value, torch.Tensor) and value.ndim and isinstance(value.shape[0], torch.SymInt):
            symbols.setdefault(str(value.shape[0]), "batch" if not symbols else f"batch_{len(symbols)}")
    return symbols
