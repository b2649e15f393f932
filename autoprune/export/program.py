"""The network as a program of `torch.export`: what all formats but the first are made from."""

from __future__ import annotations

import copy
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, final
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.utils import _pytree as pytree

from autoprune.errors import ExportError
from autoprune.export.base import Description, ExportSource
from autoprune.export.inputs import batch_size, drawn, places, tensors_of
from autoprune.randomness import untouched
from autoprune.space.cutting.graph_form import GraphNetwork
from autoprune.space.tracing.program import call_arguments, plain_attention
from autoprune.texts import first_line

_SEED = 20


@final
@dataclass(frozen=True, eq=False)
class Exported:
    """One network as a program.

    Attributes:
        program: in evaluation mode.
        any_batch: it takes batches of any size.
        names: of the inputs by position; those by keyword have names.
    """

    program: ExportedProgram
    any_batch: bool
    names: tuple[str, ...]


_PROGRAMS: WeakKeyDictionary[ExportSource, Exported] = WeakKeyDictionary()
"""All formats of a network are written from one program, which nobody changes."""


def exported(source: ExportSource) -> Exported:
    """The program of a network: for batches of any size, or, where its graph holds on to one, for the example's.

    Raises:
        ExportError: `torch.export` refuses the network.
    """
    if source not in _PROGRAMS:
        _PROGRAMS[source] = _exported(source)
    return _PROGRAMS[source]


def _exported(source: ExportSource) -> Exported:
    network, refusals = source.network, list[Exception]()
    sizes = [3, None] if batch_size(source.inputs) is not None else [None]  # not 1: it would be taken for a constant
    for size in sizes:
        args, kwargs = call_arguments(drawn(source.inputs, seed=_SEED, batch=size))
        names = _names(network, args)
        dynamic: Any = _dynamic(args, kwargs, size, source.inputs) if size else None
        try:
            with untouched(), quiet(), torch.no_grad(), plain_attention():
                program = torch.export.export(
                    _named(network, names, kwargs), args, kwargs, dynamic_shapes=dynamic, strict=False
                )
        except Exception as error:  # noqa: BLE001 - any error of user code or the tracer becomes one clear message
            refusals.append(error)
        else:
            _plain_outputs(program)
            return Exported(program, size is not None, names)
    raise ExportError(
        f"torch.export refuses this {type(network).__name__} ({type(refusals[-1]).__name__}: "
        f"{first_line(refusals[-1])}); take the format safetensors, or change that line of forward"
    ) from refusals[-1]


def _plain_outputs(program: ExportedProgram) -> None:
    """Classes of other packages among the outputs become dict and tuple, so that PyTorch alone can load the program."""
    signature = program.module_call_graph[0].signature
    spec = signature.out_spec if signature else None
    if signature is None or spec is None:
        return
    numbers, plain = pytree.tree_flatten(_plain(pytree.tree_unflatten(range(spec.num_leaves), spec)))
    if numbers == list(range(spec.num_leaves)):
        signature.out_spec = plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(map(_plain, value))
    return value


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress, the notes and the half-made graphs of torch's exporters."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _dynamic(args: tuple[Any, ...], kwargs: Mapping[str, Any], size: int, inputs: Description) -> ShapesCollection:
    """The first dimension of each tensor that grew when inputs were drawn with another batch."""
    shapes = ShapesCollection()  # type: ignore[no-untyped-call]
    traced = call_arguments(drawn(inputs, seed=_SEED))
    other = call_arguments(drawn(inputs, seed=_SEED, batch=size + 1))
    for tensor, one, two in zip(tensors_of((args, kwargs)), *map(tensors_of, (traced, other)), strict=True):
        if tensor.ndim and (tensor.shape[0] != one.shape[0] or tensor.shape[0] != two.shape[0]):
            shapes[tensor] = {0: Dim.DYNAMIC}
    return shapes


def _names(network: nn.Module, args: tuple[Any, ...]) -> tuple[str, ...]:
    signature = (
        network.graph_plan.signature if isinstance(network, GraphNetwork) else inspect.signature(network.forward)
    )
    known = []
    for name, parameter in signature.parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            break
        known.append(name)
    return tuple(known[i] if i < len(known) else f"input_{i}" for i in range(len(args)))


def _named(network: nn.Module, names: Sequence[str], kwargs: Mapping[str, Any]) -> nn.Module:
    """The network with the inputs it is called with written out: torch finds no dimensions in `*args, **kwargs`."""
    parameters = inspect.signature(network.forward).parameters.values()
    if all(parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) for parameter in parameters):
        return network

    def forward(*args: Any, **kwargs: Any) -> Any:
        return network.forward(*args, **kwargs)

    kinds = [(inspect.Parameter.POSITIONAL_OR_KEYWORD, names), (inspect.Parameter.KEYWORD_ONLY, kwargs)]
    signature = inspect.Signature([inspect.Parameter(name, kind) for kind, those in kinds for name in those])
    named = copy.copy(network)
    forward.__signature__ = signature  # type: ignore[attr-defined]
    named.forward = forward
    return named


def leaves(made: Exported, source: ExportSource, names: Sequence[str] = ()) -> list[tuple[str, Any]]:
    """(code, value) of each flat input, in the order of the program: by name they may come in any other.

    Args:
        made: the program.
        source: what it was made from.
        names: of the inputs by position, in place of those of `forward`.
    """
    positional = tuple(names) or made.names
    args, kwargs = call_arguments(drawn(source.inputs, seed=_SEED))
    values = dict(zip(positional, args, strict=True)) | kwargs
    found = dict(leaf for name, value in values.items() for leaf in places(name, value))
    spec = made.program.call_spec.in_spec
    if spec is None:
        return list(found.items())
    by_position, by_name = pytree.tree_unflatten(range(spec.num_leaves), spec)
    numbered = dict(zip(positional, by_position, strict=True)) | by_name
    order = sorted((number, place) for name, part in numbered.items() for place, number in places(name, part))
    return [(place, found[place]) for _, place in order]
