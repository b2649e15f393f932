"""An exported program as the text of a Python module that needs torch and safetensors alone."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.export.graph_signature import InputKind, OutputKind

from autoprune.errors import ExportError, TraceError
from autoprune.export.base import ExportSource
from autoprune.export.code_texts import TEMPLATE, literal, structure
from autoprune.export.inputs import drawn
from autoprune.export.program import Exported, leaves
from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.tracing.flatten import flatten
from autoprune.space.tracing.program import call_arguments

_RESERVED = {
    "self",
    "_w",
    "_device",
    "torch",
    "math",
    "operator",
    "partial",
    "next",
    "_tensor",
    "_check",
    "_same",
    "float",
    "slice",
}
_TENSORS = {
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "buffer",
}


def written(exported: Exported, source: ExportSource) -> tuple[str, dict[str, Tensor]]:
    """The code, and the tensors that it loads by name: the state dict, and what else the graph reads.

    Raises:
        ExportError: the graph holds what has no plain code: branches, objects that are no tensors.
    """
    writer = _Writer(exported, source)
    body = writer.body()
    tensors = writer.tensors()
    parameters = dict(source.network.named_parameters(remove_duplicate=False))
    tables = {
        kind: "\n".join(f'    "{name}": ({tuple(t.shape)}, {t.dtype}),' for name, t in tensors.items() if pick(name))
        for kind, pick in (("parameters", parameters.__contains__), ("buffers", lambda name: name not in parameters))
    }
    batch = "batches of any size" if exported.any_batch else "no other batch size than that of the shapes below"
    code = TEMPLATE.format(
        name=getattr(source.network, "traced_class", type(source.network).__name__),
        batch=batch,
        imports="".join(f"import {package}  # its operators\n" for package in sorted(writer.packages)),
        needs=", ".join(["torch", "safetensors", *sorted(writer.packages)]),
        signature=writer.signature(),
        body="\n".join(f"        {line}" for line in body),
        **tables,
    )
    return code, {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


@final
class _Writer:
    def __init__(self, exported: Exported, source: ExportSource) -> None:
        self._exported, self._program, self._source = exported, exported.program, source
        self._kwargs = call_arguments(drawn(source.inputs, seed=0))[1]
        self._names = exported.names
        self._graph = self._flat()
        self.packages: set[str] = set()
        self._written: dict[fx.Node, str] = {}
        self._constants: dict[str, Tensor] = {}
        self._device = False

    def _flat(self) -> fx.Graph:
        graph: fx.Graph = copy.deepcopy(self._program.graph_module).graph
        try:
            flatten(graph, self._program.constants)
        except (TraceError, NotImplementedError) as error:
            raise ExportError(f"the network has no form as plain code ({error}); take torch_export") from error
        return graph

    def signature(self) -> str:
        """The parameters of `forward`; what was no tensor has the traced value as its default."""
        by_keyword = [f"{name}={value!r}" if _is_plain(value) else name for name, value in self._kwargs.items()]
        parts = ["self", *self._names, *(["*"] if by_keyword else []), *by_keyword]
        return ", ".join(parts)

    def body(self) -> list[str]:
        """The lines of `forward`."""
        self._place_inputs()
        nodes = [node for node in self._graph.nodes if node.op == "call_function"]
        self._names_of = _distinct(nodes, {*_RESERVED, *self._names, *self._kwargs})
        last = {used: node for node in nodes for used in node.all_input_nodes}
        output = next(iter(reversed(self._graph.nodes)))
        done: dict[fx.Node, list[str]] = {}
        for used, node in last.items():
            if used.op == "call_function" and output not in used.users:
                done.setdefault(node, []).append(self._names_of[used])
        lines = [line for node in nodes for line in self._call(node, done.get(node, []))]
        checks = self._checks()
        head = ["_w = partial(_tensor, self)"]
        if self._device:
            head.append('_device = next((t.device for t in self.state_dict().values()), torch.device("cpu"))')
        return [*checks, *head, *lines, *self._returned(output)]

    def tensors(self) -> dict[str, Tensor]:
        """Name -> tensor of the state dict, then of what else the graph reads."""
        return {**self._source.weights, **self._constants}

    def _place_inputs(self) -> None:
        self._names = tuple(f"{name}_" if name in _RESERVED else name for name in self._names)
        wrong = _RESERVED & set(self._kwargs)
        if wrong:
            raise ExportError(
                f"an input is called {wrong.pop()!r}, as the code calls another thing; rename it in forward"
            )
        places_left = iter(leaves(self._exported, self._source, self._names))
        kinds = {spec.arg.name: spec for spec in self._program.graph_signature.input_specs}
        self._user: list[tuple[fx.Node, str, Any]] = []
        for node in [node for node in self._graph.nodes if node.op == "placeholder"]:
            spec = kinds.get(node.name)
            if spec is None or spec.kind is InputKind.USER_INPUT:
                place, value = next(places_left)
                self._written[node] = place
                self._user.append((node, place, value))
            elif spec.kind in _TENSORS:
                name = str(spec.target)
                self._written[node] = f'_w("{name}")'
                if name not in self._source.weights:
                    constants = self._program.constants
                    self._constants[name] = (
                        constants[name] if name in constants else tensor_of(self._source.network, name)
                    )
            elif node.users:
                raise ExportError(f"the network reads {spec.target}, which is no tensor; take the format torch_export")

    def _checks(self) -> list[str]:
        lines = []
        for node, place, value in self._user:
            made = node.meta.get("val")
            if isinstance(made, Tensor):
                sizes = ", ".join("None" if isinstance(n, torch.SymInt) else str(n) for n in made.shape)
                lines.append(f"_check({place!r}, {place}, ({sizes}{',' if made.ndim == 1 else ''}))")
            elif _is_plain(value):
                lines.append(f"_same({place!r}, {place}, {value!r})")
        return lines

    def _call(self, node: fx.Node, done: Sequence[str]) -> list[str]:
        target = node.target
        text = self._target(target)
        if text is None:
            return []
        arguments = [self._text(value) for value in node.args]
        arguments += [f"{name}={self._text(value)}" for name, value in node.kwargs.items()]
        self._written[node] = name = self._names_of[node]
        if target is operator.getitem:
            line = f"{name} = {arguments[0]}[{arguments[1]}]"
        else:
            line = f"{name} = {text}({', '.join(arguments)})"
        freed = ", ".join(done)
        return [line, f"del {freed}"] if freed else [line]

    def _target(self, target: Any) -> str | None:
        """The function as code; None for checks without an effect."""
        if isinstance(target, OpOverload):
            if str(target).startswith(("aten._assert", "aten.sym_constrain", "aten._functional_assert")):
                return None
            if target.namespace not in ("aten", "prim", "prims"):
                self.packages.add(target.namespace)
            return f"torch.ops.{target}"
        home, name = getattr(target, "__module__", ""), getattr(target, "__name__", "")
        for module in (operator, math, torch):
            if getattr(module, name, None) is target:
                return f"{module.__name__}.{name}"
        raise ExportError(f"the graph calls {home}.{name}, which has no plain code; take the format torch_export")

    def _text(self, value: Any) -> str:
        if isinstance(value, fx.Node):
            return self._written[value]
        if isinstance(value, torch.device):
            self._device = True
            return "_device"
        if isinstance(value, list | tuple):
            inner = ", ".join(map(self._text, value))
            return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{key!r}: {self._text(inner)}" for key, inner in value.items()) + "}"
        if isinstance(value, slice):
            return f"slice({self._text(value.start)}, {self._text(value.stop)}, {self._text(value.step)})"
        return literal(value)

    def _returned(self, output: fx.Node) -> list[str]:
        spec, values = self._program.call_spec.out_spec, list(output.args[0])  # type: ignore[arg-type]
        lines = []
        for made, value in zip(self._program.graph_signature.output_specs, values, strict=True):
            if made.kind is OutputKind.BUFFER_MUTATION:
                lines.append(f'_w("{made.target}").copy_({self._text(value)})')
        own = values[len(values) - spec.num_leaves :]
        return [*lines, f"return {structure(spec, [self._text(value) for value in own])}"]


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str | None)


def _distinct(nodes: Sequence[fx.Node], taken: set[str]) -> dict[fx.Node, str]:
    """A name for each, its own where that is free."""
    found: dict[fx.Node, str] = {}
    for node in nodes:
        name = node.name
        while name in taken:
            name += "_"
        found[node] = name
        taken.add(name)
    return found
