"""What the graph of a space was traced from, as plain JSON, and the full network traced anew from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from autoprune.errors import RunError, SpaceError
from autoprune.randomness import seeded
from autoprune.space.copying import copy_network
from autoprune.space.cutting.graph_form import GraphNetwork, graph_network
from autoprune.space.cutting.slicing import check_model
from autoprune.space.groups import SearchSpace
from autoprune.space.tracing.program import Example, record
from autoprune.space.tracing.trace import Traced
from autoprune.space.verification.verify import Verified

Origin: TypeAlias = Mapping[str, Any]
"""Fingerprint of the graph, structure of its example inputs, version of torch."""

InForm: TypeAlias = Callable[[nn.Module], nn.Module]
"""The model that was traced, with any weights -> the full network in the form of its space."""

_MOST_ELEMENTS = 2**31
_PLAIN = (type(None), bool, int, float, str)
_COLLECTIONS = {"tuple": tuple, "list": list}


def origin_of(traced: Traced) -> Origin:
    """What it takes to trace the graph again, given the model.

    Raises:
        SpaceError: the example holds something else than tensors, numbers, texts and collections of them.
    """
    return {
        "fingerprint": traced.program.fingerprint,
        "example": _described(_plain_example(traced.example), "the example input"),
        "torch": torch.__version__,
    }


def full_network(model: nn.Module, space: SearchSpace, origin: Origin | None) -> nn.Module:
    """The full network in the form of its space: the model itself, or its graph, traced anew.

    Args:
        model: the network that was traced, with any weights; only read.
        space: its space.
        origin: what the graph was traced from; None for a space of module form.

    Raises:
        SpaceError: the model is not the one that was traced, or the origin is incomplete.
        TraceError: the model cannot be traced any more.
        RunError: it is traced to another graph.
    """
    if space.form == "module":
        return model
    check_model(model, space)
    home = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    try:
        with seeded(0):
            example: Example = _made((origin or {})["example"], home)
        expected, version = str((origin or {})["fingerprint"]), (origin or {}).get("torch")
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RuntimeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise SpaceError(f"the space does not say what its graph was traced from ({what}); trace it anew") from error
    program = record(model, example)
    if program.fingerprint != expected:
        raise RunError(
            f"this {type(model).__name__} is traced to another graph than the network that was searched (with torch "
            f"{version}, this is torch {torch.__version__}): restore the code of the model as it was then, or that "
            f"version of torch"
        )
    return graph_network(model, program, space, example)


def check_size(shape: Sequence[int]) -> None:
    """Refuse the shape of an example that nobody has traced with.

    Raises:
        ValueError: it is no list of whole numbers, or far too large.
    """
    if not all(type(length) is int and length >= 0 for length in shape) or math.prod(shape) > _MOST_ELEMENTS:
        raise ValueError(f"an input of shape {list(shape)[:8]} has no or more than {_MOST_ELEMENTS:,} elements")


def in_form(verified: Verified) -> InForm:
    """What `full_network` does, with the graph that is there already."""
    space, network = verified.space, verified.network
    if not isinstance(network, GraphNetwork):
        return lambda model: model
    plan = network.graph_plan  # without the weights

    def graph(model: nn.Module) -> nn.Module:
        check_model(model, space)
        return GraphNetwork(copy_network(model), plan, space.full)

    return graph


def _plain_example(example: Example) -> object:
    return dict(example) if isinstance(example, Mapping) else example


def _described(value: object, place: str) -> dict[str, Any]:
    if isinstance(value, Tensor):
        return {"tensor": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {"mapping": {key: _described(inner, f"{key} of {place}") for key, inner in value.items()}}
    for name, kind in _COLLECTIONS.items():
        if type(value) is kind:
            return {name: [_described(inner, f"part {i} of {place}") for i, inner in enumerate(value)]}
    if isinstance(value, _PLAIN):
        return {"value": value}
    raise SpaceError(
        f"{place} is a {type(value).__name__}: this model can only be cut as its traced graph, whose inputs must be "
        f"tensors, numbers, texts, or tuples, lists and mappings of them; wrap the model in one that takes those"
    )


def _made(description: Mapping[str, Any], device: torch.device) -> Any:
    """A value of this structure: random numbers where it had floating point, zeros where it had integers."""
    if "tensor" in description:
        check_size(description["tensor"])
        dtype = getattr(torch, description["dtype"])
        if dtype.is_floating_point or dtype.is_complex:
            return torch.randn(description["tensor"], device=device).to(dtype)
        return torch.zeros(description["tensor"], dtype=dtype, device=device)
    if "mapping" in description:
        return {name: _made(inner, device) for name, inner in description["mapping"].items()}
    for name, kind in _COLLECTIONS.items():
        if name in description:
            return kind(_made(inner, device) for inner in description[name])
    return description["value"]
