"""From a model and an example input to a search space: export the graph once, follow channels through it."""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import operator
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from autoprune.config import SpaceOptions
from autoprune.errors import TraceError
from autoprune.randomness import untouched
from autoprune.space.assemble import assemble
from autoprune.space.calls import Call, LabelGraph, Parameter
from autoprune.space.groups import SearchSpace
from autoprune.space.labels import FIXED
from autoprune.space.rules import RULES, is_pointwise, pointwise, unknown


@final
@dataclass(frozen=True, eq=False)
class Traced:
    """A traced model.

    Attributes:
        space: its width groups, not yet verified.
        code_fingerprint: a hash of the exported graph, the same for the same model code and input shape.
    """

    space: SearchSpace
    code_fingerprint: str


def trace(model: nn.Module, example_input: Tensor | tuple[Any, ...], *, options: SpaceOptions | None = None) -> Traced:
    """Find the width groups of a model; the model is only read.

    Args:
        model: any module that `torch.export` accepts.
        example_input: its positional inputs; costs are those of one forward pass of this input, so a batch of 1
            gives costs per image.
        options: width choices.

    Raises:
        TraceError: the model cannot be exported.
    """
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    program = export(model, inputs)
    graph = LabelGraph()
    _Interpreter(program, graph).run()
    space = assemble(graph, model, options or SpaceOptions())
    code = hashlib.sha256(program.graph_module.code.encode())
    for name, parameter in model.named_parameters():
        code.update(f"{name}{tuple(parameter.shape)}".encode())
    return Traced(space, code.hexdigest()[:16])


def export(model: nn.Module, inputs: tuple[Any, ...]) -> ExportedProgram:
    """Export a copy of the model in evaluation mode; flags, weights and global random state stay as they are."""
    try:
        with untouched(), _quiet(), torch.no_grad():
            return torch.export.export(copy.deepcopy(model).eval(), inputs, strict=False)
    except Exception as error:  # any error of user code or the exporter becomes one clear message
        raise TraceError(
            f"{type(model).__name__} cannot be exported to a graph with this example input "
            f"({', '.join(_describe(i) for i in inputs)}): {type(error).__name__}: {_first_lines(str(error))}. "
            f"Check that model(example_input) runs; torch.export also refuses `if` on tensor values, "
            f".item() and printing of tensors inside forward: compute such values outside, or make them constants"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the half-made graph that a failing export prints, and torch's logs, from hiding the error."""
    before = logging.root.manager.disable
    logging.disable()  # torch's loggers each have handlers of their own, and some are made during the export
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


@final
class _Interpreter:
    """Runs the exported graph once, on labels."""

    def __init__(self, program: ExportedProgram, graph: LabelGraph) -> None:
        self._program = program
        self._parameters = program.graph_signature.inputs_to_parameters  # built anew at each access
        self._buffers = program.graph_signature.inputs_to_buffers
        self._graph = graph
        self._values: dict[torch.fx.Node, Any] = {}

    def run(self) -> None:
        nodes = self._program.graph.nodes
        last_use = {used: node for node in nodes for used in node.all_input_nodes}
        with torch.no_grad():
            for node in nodes:
                self._values[node] = self._visit(node)
                for used in node.all_input_nodes:
                    if last_use[used] is node:
                        self._values[used] = None  # labels of large maps need not pile up

    def _visit(self, node: torch.fx.Node) -> Any:
        if node.op == "placeholder":
            return self._placeholder(node)
        if node.op == "output":
            return self._output(node)
        if node.op == "get_attr":
            return None
        if node.target is operator.getitem:
            source, index = node.args
            return self._values[source][index]  # type: ignore[index]
        call = self._call(node)
        if is_pointwise(node.target) and call.tensors:
            return pointwise(self._graph, call)
        return RULES.get(call.name, unknown)(self._graph, call)

    def _placeholder(self, node: torch.fx.Node) -> Any:
        value = node.meta.get("val")
        if isinstance(value, Tensor) and node.name in self._parameters:
            return Parameter(self._parameters[node.name], tuple(value.shape), "parameter")
        if isinstance(value, Tensor) and node.name in self._buffers:
            return Parameter(self._buffers[node.name], tuple(value.shape), "buffer")
        return torch.tensor(FIXED).expand(value.shape) if isinstance(value, Tensor) else value

    def _output(self, node: torch.fx.Node) -> None:
        for value in torch.utils._pytree.tree_leaves(torch.fx.node.map_arg(node.args, self._values.__getitem__)):
            if isinstance(value, Tensor | Parameter):
                self._graph.unions.freeze(self._graph.labels(value), "the model's output")

    def _call(self, node: torch.fx.Node) -> Call:
        target: Any = node.target
        name = getattr(target, "__name__", str(target)).split(".")[0]
        positional = torch.fx.node.map_arg(node.args, self._values.__getitem__)
        keywords = torch.fx.node.map_arg(node.kwargs, self._values.__getitem__)
        schema = getattr(target, "_schema", None)
        names = [a.name for a in schema.arguments] if schema else [f"arg{i}" for i in range(len(positional))]
        arguments: dict[str, Any] = dict(zip(names, positional, strict=False)) | dict(keywords)
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        module = stack[-1][0] if stack else ""
        weight = arguments.get("weight")
        layer = weight.name.rpartition(".")[0] or weight.name if isinstance(weight, Parameter) else module
        return Call(target, name, arguments, node.meta.get("val"), layer, f"{name} in {module or 'the model'}")


def _describe(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def _first_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:2])[:400].rstrip(".")
