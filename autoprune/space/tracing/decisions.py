"""Whether a forward reads values to decide what it does, which its graph does only for the example."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx


def decides(graph: fx.Graph, buffers: Mapping[str, Tensor]) -> bool:
    """True where forward asks for a value that another input, or other weights, would change.

    What is made of constants alone (a causal mask that `nn.Transformer` looks through) is the same in every pass, and
    so are tables that forward only reads.

    Args:
        graph: as it was recorded, dead code included.
        buffers: placeholder name -> the buffer it holds; others are parameters and inputs.
    """
    written = {_source(node) for node in graph.nodes if _writes(node)}
    changing: set[fx.Node] = set()
    for node in graph.nodes:
        tags = getattr(node.target, "tags", ())
        if node.op == "placeholder":
            table = buffers.get(node.name)
            changes = table is None or table.ndim < 2 or node in written
        else:
            changes = torch.Tag.nondeterministic_seeded in tags or not changing.isdisjoint(node.all_input_nodes)
        if changes:
            changing.add(node)
            if torch.Tag.data_dependent_output in tags:
                return True
    return False


def _writes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _source(node: fx.Node) -> fx.Node:
    """The tensor that a call writes into, views of it left out."""
    while node.op == "call_function" and node.all_input_nodes and _is_view(node):
        node = node.all_input_nodes[0]
    return node


def _is_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(made.alias_info is not None for made in schema.returns)
