"""The pieces of written code that know no graph: the file around it, literals, and how inputs and outputs are put."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from autoprune.errors import ExportError

TEMPLATE = '''\
"""{name}, cut by autoprune, as the graph of its forward in evaluation mode.

    from model import build
    network = build()  # with the weights of model.safetensors beside this file

Needs {needs}; takes {batch}. Dropout is off and norms keep their running statistics, in training as well.
"""

from functools import partial, reduce
from pathlib import Path

import math
import operator
import torch
{imports}from safetensors.torch import load_file
from torch import nn

PARAMETERS = {{
{parameters}
}}
BUFFERS = {{
{buffers}
}}


class Network(nn.Module):
    """The tensors have their names in the network that was cut."""

    def __init__(self):
        super().__init__()
        for name, (shape, dtype) in PARAMETERS.items():
            trained = dtype.is_floating_point or dtype.is_complex
            home, _, own = name.rpartition(".")
            _home(self, home).register_parameter(own, nn.Parameter(torch.zeros(shape, dtype=dtype), trained))
        for name, (shape, dtype) in BUFFERS.items():
            home, _, own = name.rpartition(".")
            _home(self, home).register_buffer(own, torch.zeros(shape, dtype=dtype))

    def forward({signature}):
{body}


def build(weights=Path(__file__).with_name("model.safetensors")):
    """Return the network with its weights, in evaluation mode; weights=None leaves zeros."""
    network = Network()
    if weights is not None:
        network.load_state_dict(load_file(weights))
    return network.eval()


def _home(module, path):
    for name in filter(None, path.split(".")):
        if name not in module._modules:
            module.add_module(name, nn.Module())
        module = module._modules[name]
    return module


def _tensor(module, name):
    return reduce(getattr, name.split("."), module)


def _check(name, tensor, sizes):
    if tensor.ndim != len(sizes) or any(own not in (None, n) for n, own in zip(tensor.shape, sizes)):
        shown = ", ".join("any" if n is None else str(n) for n in sizes)
        raise ValueError(f"{{name}} is of shape {{tuple(tensor.shape)}}; this graph takes ({{shown}})")


def _same(name, value, traced):
    if value != traced:
        raise ValueError(f"{{name}} is {{value!r}}; this graph was made for {{traced!r}}")
'''


def literal(value: Any) -> str:
    """A value as code.

    Raises:
        ExportError: it has none.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    plain = bool | int | float | complex | str | None | torch.dtype | torch.layout | torch.memory_format
    if isinstance(value, plain):
        return repr(value)
    raise ExportError(
        f"the graph holds a {type(value).__name__}, which has no plain code; take the format torch_export"
    )


def structure(spec: Any, leaves: Sequence[str]) -> str:
    """The outputs put together: tuples, lists and mappings; classes of a package's own become mappings or tuples."""
    left = iter(leaves)

    def put(part: Any) -> str:
        if part.is_leaf():
            return next(left)
        children = part.children() if callable(getattr(part, "children", None)) else part.children_specs
        texts, keys = [put(child) for child in children], part.context
        if part.type is type(None):
            return "None"
        if part.type is list:
            return f"[{', '.join(texts)}]"
        if part.type is not tuple and _are_names(keys, len(texts)):
            return "{" + ", ".join(f"{key!r}: {text}" for key, text in zip(keys, texts, strict=True)) + "}"
        return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"

    return put(spec)


def _are_names(keys: Any, count: int) -> bool:
    return isinstance(keys, list | tuple) and len(keys) == count and all(isinstance(key, str | int) for key in keys)
