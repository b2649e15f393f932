"""The flat ATen graph of a model: exported by torch, or recorded by make_fx where the exporter refuses.

Longer than others, as a program and the two ways to record it share what they know of torch's graphs.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias, final

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree
from torch.utils._pytree import tree_leaves

from autoprune.errors import TraceError
from autoprune.randomness import python_draws, untouched
from autoprune.space.copying import copy_network
from autoprune.space.tracing.decisions import decides
from autoprune.space.tracing.flatten import flatten, note_shapes
from autoprune.space.tracing.functions import watched
from autoprune.space.tracing.module_paths import name_modules
from autoprune.space.tracing.refusal import (
    ForeignParameterError,
    ForeignParameters,
    explain,
    explain_copy,
    refuse_wrapped,
)

Example: TypeAlias = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""What a model is called with: one tensor, positional inputs, or keyword inputs."""

Prepare: TypeAlias = Callable[[nn.Module], object]
"""Brings a copy of a model into the mode in which it is traced."""


def call_arguments(example: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword inputs of an example."""
    if isinstance(example, Mapping):
        return (), dict(example)
    return (example if isinstance(example, tuple) else (example,)), {}


def run_model(model: nn.Module, example: Example) -> Any:
    """Call the model on the example."""
    args, kwargs = call_arguments(example)
    return model(*args, **kwargs)


@final
@dataclass(frozen=True, eq=False)
class Program:
    """One forward pass as a graph of ATen calls, without regions and dead code.

    Attributes:
        graph: its placeholders are the model's tensors, then constants and the inputs.
        tensors: placeholder name -> name of a parameter or buffer and which of the two it is.
        constants: placeholder name -> a tensor made while tracing.
        inputs: placeholder names of the flattened inputs, in order.
        out_spec: how the flat outputs form what the model returns.
        tracer: who recorded it.
        seconds: CPU seconds that took.
        decides: forward reads values (`if`, `.item()`); the graph holds what it decided for the example only.
        lost: functions with a backward of their own that the graph cannot keep.
        draws: forward draws from the generators of Python or numpy; the graph holds what it drew.
    """

    graph: fx.Graph
    tensors: Mapping[str, tuple[str, Literal["parameter", "buffer"]]]
    constants: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    out_spec: Any
    tracer: Literal["torch.export", "make_fx"]
    seconds: float
    decides: bool = False
    lost: tuple[str, ...] = ()
    draws: bool = False

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the graph: the same for the same model code and input shape."""
        text = "\n".join(
            f"{n.op} {n.target if n.op != 'placeholder' else n.name} {n.args} {n.kwargs}" for n in self.nodes
        )
        text = re.sub(r"device\(type='\w+'(, index=\d+)?\)", "device", text)  # the same graph on any device
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def nodes(self) -> tuple[fx.Node, ...]:
        """All nodes, each after those it reads."""
        return tuple(self.graph.nodes)

    @cached_property
    def last_use(self) -> dict[fx.Node, list[fx.Node]]:
        """Node -> the values that nobody reads after it, so that they can be let go."""
        last = {used: node for node in self.nodes for used in node.all_input_nodes}
        done: dict[fx.Node, list[fx.Node]] = {}
        for used, node in last.items():
            done.setdefault(node, []).append(used)
        return done

    @property
    def outputs(self) -> list[Any]:
        """What the output node returns, flat: nodes and constants."""
        return pytree.tree_leaves(self.nodes[-1].args[0])

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TraceError(
            "a network that runs its traced graph cannot be pickled (torch.save of a whole network, workers of other "
            "frameworks): save its state_dict(), or write it by result.save(folder) or autoprune export"
        )

    def run(
        self, example: Example, place: Callable[[fx.Node, Any], Any], call: Callable[[fx.Node, Any, Any], Any]
    ) -> Any:
        """Execute the graph.

        Args:
            example: the inputs, of the structure that was traced.
            place: (placeholder, input or constant or None) -> its value.
            call: (node, args, kwargs) -> its value.
        """
        given = dict(zip(self.inputs, pytree.tree_leaves(call_arguments(example)), strict=True))
        values: dict[fx.Node, Any] = {}
        for node in self.nodes:
            if node.op == "placeholder":
                values[node] = place(node, given.get(node.name, self.constants.get(node.name)))
            elif node.op == "call_function":
                args = fx.node.map_arg(node.args, values.__getitem__)
                kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
                values[node] = call(node, args, kwargs)
            else:
                leaves = [values[v] if isinstance(v, fx.Node) else v for v in self.outputs]
                return pytree.tree_unflatten(leaves, self.out_spec)
            for used in self.last_use.get(node, ()):
                values[used] = None
        raise AssertionError("a graph ends with its output")


def record(model: nn.Module, example: Example, *, prepare: Prepare = nn.Module.eval) -> Program:
    """Trace a copy of the model in evaluation mode; flags, weights and global random state stay as they are.

    `torch.export` first; where it refuses, `make_fx` runs the example for real and records what happens. Gradients are
    switched on, so that the graph can say where forward switches them off; no tensor asks for one.

    Args:
        model: any module; only read.
        example: what it is called with.
        prepare: brings the copy into the mode that is traced.

    Raises:
        TraceError: both refuse; names the line of `forward` and what to change.
    """
    started = time.process_time()
    wrapped = refuse_wrapped(model)
    if wrapped is not None:
        raise TraceError(wrapped)
    refusals: list[Exception] = []
    tracers: tuple[Callable[[nn.Module, Example], Program], ...] = (_export, _make_fx)
    try:
        clone = copy_network(model).requires_grad_(False)
        prepare(clone)
    except Exception as error:
        raise TraceError(explain_copy(model, error)) from error
    for tracer in tracers:
        try:
            with untouched(), _quiet(), torch.enable_grad(), plain_attention(), watched(), ForeignParameters() as seen:
                draws = python_draws()
                program = tracer(clone, example)
                seen.check()
                lost = flatten(program.graph, program.constants)
                name_modules(program.graph, clone)
                note_shapes(program.graph)
                program = replace(program, lost=lost, draws=draws())
        except ForeignParameterError as error:
            raise TraceError(str(error)) from None
        except Exception as error:  # noqa: BLE001 - any error of user code or a tracer becomes one clear message
            refusals.append(error)
        else:
            return replace(program, seconds=time.process_time() - started)
    raise TraceError(explain(model, call_arguments(example), refusals)) from refusals[-1]


def _export(model: nn.Module, example: Example) -> Program:
    args, kwargs = call_arguments(example)
    exported = torch.export.export(model, args, kwargs, strict=False)
    signature = exported.graph_signature
    tensors: dict[str, tuple[str, Literal["parameter", "buffer"]]] = {}
    tensors |= {placeholder: (name, "parameter") for placeholder, name in signature.inputs_to_parameters.items()}
    tensors |= {placeholder: (name, "buffer") for placeholder, name in signature.inputs_to_buffers.items()}
    constants = {
        placeholder: exported.constants[name]
        for placeholder, name in signature.inputs_to_lifted_tensor_constants.items()
    }
    out_spec = exported.call_spec.out_spec
    graph = exported.graph_module.graph
    n_outputs = out_spec.num_leaves
    output = next(iter(reversed(graph.nodes)))
    output.args = (
        tuple(output.args[0])[-n_outputs:] if n_outputs else (),
    )  # without mutated buffers, which come first
    placeholders = [node.name for node in graph.nodes if node.op == "placeholder"]
    inputs = tuple(name for name in placeholders if name not in tensors and name not in constants)
    if len(inputs) != len(pytree.tree_leaves((args, kwargs))):
        raise NotImplementedError("forward makes objects that are no tensors (a random generator)")
    return Program(graph, tensors, constants, inputs, out_spec, "torch.export", 0.0)


def _make_fx(model: nn.Module, example: Example) -> Program:
    from torch.fx.experimental.proxy_tensor import make_fx

    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    named = {**parameters, **buffers}
    leaves, in_spec = pytree.tree_flatten(call_arguments(example))
    out_spec: list[Any] = []

    def flat(tensors: list[Tensor], inputs: list[Any]) -> list[Any]:
        args, kwargs = pytree.tree_unflatten(inputs, in_spec)
        result = torch.func.functional_call(model, dict(zip(named, tensors, strict=True)), args, kwargs)
        outputs, spec = pytree.tree_flatten(result)
        out_spec.append(spec)
        return outputs

    tracer = make_fx(flat, pre_dispatch=True, tracing_mode="real", _error_on_data_dependent_ops=False)
    module = tracer(list(named.values()), leaves)  # `if` on values and .item() take this example's way
    graph = module.graph
    names = [node.name for node in graph.nodes if node.op == "placeholder"]
    tables = {placeholder: buffers[name] for placeholder, name in zip(names, named, strict=False) if name in buffers}
    decided = decides(graph, tables)
    tensors = {
        placeholder: (name, "parameter" if name in parameters else "buffer")
        for placeholder, name in zip(names, named, strict=False)
    }
    constants: dict[str, Tensor] = {}
    for node in [
        n for n in graph.nodes if n.op == "get_attr" and isinstance(getattr(module, str(n.target), None), Tensor)
    ]:
        value = getattr(module, str(node.target))
        with graph.inserting_before(next(iter(graph.nodes))):
            placeholder = graph.placeholder(node.name)
        placeholder.meta["val"] = value
        constants[placeholder.name] = value
        node.replace_all_uses_with(placeholder)
        graph.erase_node(node)
    inputs = tuple(names[len(named) :])
    return Program(graph, tensors, constants, inputs, out_spec[-1], "make_fx", 0.0, decided)  # type: ignore[arg-type]


@contextmanager
def plain_attention() -> Iterator[None]:
    """Keep nn.MultiheadAttention from vanishing into one fused operator."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the half-made graph that a failing export prints, and torch's logs, from hiding the error."""
    before = logging.root.manager.disable
    logging.disable()  # torch's loggers each have handlers of their own, and some are made during the export
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def tensors(outputs: Any) -> list[Tensor]:
    """Return all tensors of a nested output, in order."""
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
