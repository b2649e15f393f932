"""ONNX Runtime: the network is exported, and the runtime folds norms, fuses activations and chooses layouts itself."""

from __future__ import annotations

import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.cost.latency.device_profile import Conditions
from autoprune.cost.latency.kernels import DeviceKernel
from autoprune.errors import ConfigError, EvaluationError
from autoprune.latency.backends.base import Backend, Runner

_OPSET = 17
_IR_VERSION = 8  # what opset 17 came with; every runtime since reads it


@final
class OnnxRuntime(Backend):
    """Runs networks on the CPU with ONNX Runtime."""

    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx", "torch")
    alignment: ClassVar[int] = 4

    def ready(
        self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], conditions: Conditions
    ) -> Runner:
        """A session with the exported network, its inputs bound.

        Raises:
            ConfigError: a package is missing, or the conditions are not those of this backend.
            EvaluationError: the network cannot be exported.
        """
        runtime, _ = _packages()
        if conditions.dtype != "float32" or conditions.device != "cpu" or conditions.channels_last:
            raise ConfigError(
                f"the backend onnxruntime measures float32 on the CPU and chooses layouts itself; got {conditions}"
            )
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        return _bound(runtime, _export(network, args, kwargs), tensors, conditions.threads)

    def idle(self, conditions: Conditions) -> Runner:
        """A session that multiplies two numbers."""
        runtime, onnx = _packages()
        return _bound(runtime, _single(onnx, ("MatMul", {}), [(1, 1), (1, 1)]), [torch.ones(1, 1)], conditions.threads)

    def kernel(self, kernel: DeviceKernel, shapes: Sequence[tuple[int, ...]], conditions: Conditions) -> Runner | None:
        """A convolution or linear layer with its bias, as a model of its own; None for others."""
        runtime, onnx = _packages()
        node = _node(kernel, shapes)
        if node is None:
            return None
        try:
            model = _single(onnx, node, shapes)
            return _bound(runtime, model, [torch.rand(shapes[0])], conditions.threads)
        except Exception:  # noqa: BLE001 - a size that the runtime refuses: it is left to the fit on whole networks
            return None


def _packages() -> tuple[Any, Any]:
    """The modules onnxruntime and onnx.

    Raises:
        ConfigError: one of them is not installed.
    """
    try:
        return importlib.import_module("onnxruntime"), importlib.import_module("onnx")
    except ImportError as error:
        raise ConfigError(
            f"the latency backend onnxruntime needs packages that are not installed ({error}); "
            f"run: pip install 'autoprune[onnx]'"
        ) from error


def _bound(runtime: Any, model: bytes, inputs: Sequence[Tensor], threads: int) -> Runner:
    """A session on this many threads with its inputs bound, so that nothing is copied between runs."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for taken, tensor in zip(session.get_inputs(), inputs, strict=True):
        binding.bind_cpu_input(taken.name, np.ascontiguousarray(tensor.numpy()))
    for made in session.get_outputs():
        binding.bind_output(made.name)
    return lambda: session.run_with_iobinding(binding)


def _export(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """The network as an ONNX file, by torch's fast exporter, or by its thorough one where that refuses.

    Raises:
        EvaluationError: both refuse.
    """
    refusals: list[Exception] = []
    for export in (_export_traced, _export_program):
        try:
            with torch.inference_mode(mode=False), torch.no_grad(), _quiet():
                return export(network, args, kwargs)
        except Exception as error:  # noqa: BLE001 - any error of an exporter becomes one clear message
            refusals.append(error)
    told = "; ".join(f"{type(e).__name__}: {str(e).strip().partition(chr(10))[0]}" for e in refusals)
    raise EvaluationError(
        f"this {type(network).__name__} cannot be exported to ONNX ({told}); use the backend torch"
    ) from refusals[-1]


def _export_traced(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    given: Any = (*args, kwargs) if kwargs else args
    torch.onnx.export(network, given, file, dynamo=False, opset_version=_OPSET)  # type: ignore[arg-type]
    return file.getvalue()


def _export_program(network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    program: Any = torch.onnx.export(network, args, kwargs=kwargs, dynamo=True, optimize=True)
    exported: bytes = program.model_proto.SerializeToString()
    return exported


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' progress and deprecation notes."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _node(kernel: DeviceKernel, shapes: Sequence[tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
    """Operator and attributes in ONNX."""
    settings = dict(kernel.settings)
    if kernel.operator == "linear" and len(shapes) >= 2 and kernel.operands[1].role == "weight":
        return ("Gemm", {"transB": 1}) if len(shapes[0]) == 2 else ("MatMul", {})
    if kernel.kind not in ("convolution", "depthwise") or "transpose" in kernel.operator or len(shapes) < 2:
        return None
    if not all(isinstance(settings.get(key), tuple) for key in ("stride", "padding", "dilation")):
        return None
    channels, inside = shapes[0][1], shapes[1][1]
    return "Conv", {
        "group": channels // inside,
        "strides": list(settings["stride"]),
        "dilations": list(settings["dilation"]),
        "pads": [*settings["padding"], *settings["padding"]],
    }


def _single(onnx: Any, node: tuple[str, dict[str, Any]], shapes: Sequence[tuple[int, ...]]) -> bytes:
    """A model of one node: the first shape is its input, the second its weight; a bias is there where it is free."""
    rng = np.random.default_rng(0)
    weight, bias = shapes[1], (shapes[1][0],)
    product = node[0] == "MatMul"  # its weight lies the other way round, and a bias would be a node of its own
    constants = [rng.random(shape, dtype=np.float32) for shape in ((weight[::-1],) if product else (weight, bias))]
    names = ["weight", "bias"][: len(constants)]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(node[0], ["x", *names], ["y"], **node[1])],
        "kernel",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(shapes[0]))],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(value, name) for value, name in zip(constants, names, strict=True)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    serialised: bytes = model.SerializeToString()
    return serialised
