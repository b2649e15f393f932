"""ONNX, from the program of `torch.export`, checked by ONNX Runtime."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from autoprune.errors import ConfigError, ExportError
from autoprune.export.base import Exporter, ExportSource, WrittenFiles
from autoprune.export.inputs import places, tensors_of
from autoprune.export.onnx_names import input_names, name_outputs
from autoprune.export.program import Exported, exported, quiet
from autoprune.texts import first_line

_FILE, _WEIGHTS = "model.onnx", "model.onnx.data"
_ONE_FILE = 1_500_000_000  # bytes; a protocol buffer ends at 2 GiB
_INPUTS = "inputs"  # of the metadata: which place among the inputs of forward has which name
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
        names = input_names(made, source)
        try:
            with quiet(), torch.no_grad():
                program: Any = torch.onnx.export(
                    made.program,
                    (),
                    dynamo=True,
                    optimize=True,
                    opset_version=self._opset,
                    input_names=list(names.values()),
                )
                program.rename_axes(_batch_axes(made))
                name_outputs(program.model.graph, made)
                program.model.metadata_props[_INPUTS] = json.dumps(names)
                large = sum(tensor.nbytes for tensor in source.weights.values()) > _ONE_FILE
                program.save(folder / _FILE, external_data=large)
        except Exception as error:
            raise ExportError(
                f"torch.onnx cannot translate this {type(source.network).__name__} ({_reason(error)}); take the format "
                f"torch_export or module"
            ) from error
        inputs = ", ".join(f'"{name}": …' for name in names.values())
        return WrittenFiles(
            tuple(path for name in (_FILE, _WEIGHTS) if (path := folder / name).exists()),
            made.any_batch,
            f'session = onnxruntime.InferenceSession("{_FILE}"); session.run(None, {{{inputs}}})',
        )

    def read(self, folder: Path) -> Callable[..., Any]:
        """A session of ONNX Runtime on the CPU; returns the output tensors in a list."""
        runtime = _imported("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, torch.get_num_threads()
        session = runtime.InferenceSession(str(folder / _FILE), options, providers=["CPUExecutionProvider"])
        order = [taken.name for taken in session.get_inputs()]
        names = json.loads(session.get_modelmeta().custom_metadata_map[_INPUTS])

        def call(*args: Any, **kwargs: Any) -> list[torch.Tensor]:
            given = dict(zip(order, tensors_of(args), strict=False))
            parts = (place for name, value in kwargs.items() for place in places(name, value))
            given |= {names[place]: part for place, part in parts if isinstance(part, torch.Tensor)}
            arrays = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in given.items()}
            return [torch.from_numpy(np.asarray(made)) for made in session.run(None, arrays)]

        return call


def _reason(error: BaseException) -> str:
    """What went wrong at the bottom: torch.onnx says on top only which of its steps it was."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"


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
