"""Names of inputs and outputs of an ONNX graph: those that the network's code has for them, each once."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from autoprune.export.base import ExportSource
from autoprune.export.inputs import places
from autoprune.export.program import Exported, leaves


def input_names(made: Exported, source: ExportSource) -> dict[str, str]:
    """Place among the inputs of forward -> name, of each tensor, in the order of the program."""
    found = [place for place, value in leaves(made, source) if isinstance(value, torch.Tensor)]
    return dict(zip(found, distinct(map(name_of, found)), strict=True))


def name_of(place: str) -> str:
    """`batch['mask']` -> `batch_mask`."""
    return re.sub(r"\W+", "_", place, flags=re.ASCII).strip("_")


def distinct(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """The names, with a number behind those that are taken already."""
    found, known = list[str](), set(taken)
    for name in names:
        number, free = 1, name
        while free in known:
            number, free = number + 1, f"{name}_{number + 1}"
        known.add(free)
        found.append(free)
    return found


def name_outputs(graph: Any, made: Exported) -> None:
    """Name the outputs of an ONNX graph by their place: `logits` of a mapping, `output_0` of a tuple, else `output`.

    Args:
        graph: of `onnx_ir`; changed. An output that is an input, a weight or another output becomes a copy, as a name
            may stand for one value only.
        made: the program that it was made from.
    """
    ir, seen = importlib.import_module("onnx_ir"), set[int]()
    for i, value in enumerate(graph.outputs):
        if value.is_graph_input() or value.is_initializer() or id(value) in seen:
            copied = ir.node("Identity", [value])
            graph.append(copied)
            copied.outputs[0].shape, copied.outputs[0].type = value.shape, value.type
            graph.outputs[i] = copied.outputs[0]
        seen.add(id(value))
    names = _output_names(made)
    if len(names) == len(graph.outputs):
        own = set(map(id, graph.outputs))
        inner = (value for node in graph for value in node.outputs if id(value) not in own)
        taken = [value.name for value in (*graph.inputs, *graph.initializers.values(), *inner)]
        for value in graph.outputs:
            value.name = None  # none stands in the way of another
        for value, name in zip(graph.outputs, distinct(names, taken), strict=True):
            value.name = name


def _output_names(made: Exported) -> list[str]:
    """Of the tensors in the outputs, in order; empty where the classes of the outputs do not say."""
    spec = made.program.call_spec.out_spec
    if spec is None:
        return []
    arguments = [s.arg for s in made.program.graph_signature.output_specs if s.kind is OutputKind.USER_OUTPUT]
    numbered: Sequence[tuple[str, Any]] = list(places("", pytree.tree_unflatten(range(spec.num_leaves), spec)))
    if [number for _, number in numbered] != list(range(len(arguments))):
        return []
    names = (name_of(place) for place, number in numbered if isinstance(arguments[number], TensorArgument))
    return [name if name and not name[0].isdigit() else f"output_{name}".strip("_") for name in names]
