"""Whether a graph trains as its model does: outputs, gradients and buffers of a step, at full width, with one seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.errors import SpaceError
from autoprune.randomness import draws, seeded
from autoprune.space.copying import copy_network, copy_on_write
from autoprune.space.cutting.graph_form import GraphNetwork, step_of_cut
from autoprune.space.cutting.training_form import without_batch_norms
from autoprune.space.groups import SearchSpace
from autoprune.space.tracing.functions import FunctionCall
from autoprune.space.tracing.program import Example, run_model, tensors
from autoprune.space.verification.comparison import TOLERANCE, in_double, relative
from autoprune.texts import first_line

Step: TypeAlias = dict[str, Tensor]
"""What one step gives: outputs, gradients, buffers, by names for a message."""

Compared: TypeAlias = tuple[list[str], bool]
"""Names of what differs, and whether anything was drawn at random."""

_SEEDS = (0, 1)  # what forward decides by chance shows in one of several
_FLOOR = 1e-3
"""Gradients smaller than this part of the largest one are compared with that: they are sums that cancel."""


def check_training(space: SearchSpace, model: nn.Module, network: GraphNetwork, example: Example) -> SearchSpace:
    """Compare the graph with the model at full width; the space notes what the graph does not do in training.

    Args:
        space: of graph form.
        model: the traced model, scrambled; only read.
        network: its graph at full width.
        example: what both are called with.

    Raises:
        SpaceError: gradients differ in evaluation mode, where nothing but the backward can be the reason.
    """
    kind, plan = network.traced_class, network.graph_plan
    graph = GraphNetwork(copy_on_write(model), plan, space.full, kind=kind)
    try:
        differing = _differences(model, graph, example, nn.Module.eval)
    except _CannotRunError:  # no gradient reaches anything, and the note below says so
        differing = []
    if differing:
        culprits = ", ".join(plan.program.lost)
        why = f"the backward of {culprits} is not kept, as its forward uses" if culprits else "its forward may use"
        raise SpaceError(
            f"parts of this model can only be cut as its traced graph, and that does not train like {kind}: "
            f"{_listed(differing)} would differ. Most likely {why} tensors or layers that it is not given: pass all "
            f"tensors to apply, or exclude the layers that need the graph (space option exclude)"
        )
    _check_backward(network, space)
    note = _in_training(model, graph, example)
    return replace(space, notes=(*space.notes, note)) if note else space


def _check_backward(network: GraphNetwork, space: SearchSpace) -> None:
    """Functions with a backward of their own may have sizes in it that only backward shows."""
    program = network.graph_plan.program
    functions = dict.fromkeys(repr(node.target) for node in program.nodes if isinstance(node.target, FunctionCall))
    if not functions:
        return
    try:
        step_of_cut(network, space, nn.Module.eval)
    except Exception as error:
        raise SpaceError(
            f"the backward of a cut network does not run ({type(error).__name__}: {first_line(error)}); this model has "
            f"functions with a backward of their own ({', '.join(functions)}): let it take all sizes from its tensors, "
            f"or exclude the layers around them (space option exclude)"
        ) from error


def _in_training(model: nn.Module, graph: GraphNetwork, example: Example) -> str | None:
    """What differs in training, as a note; None where nothing does."""
    problem = graph.graph_plan.training.problem
    why = f" ({problem})" if problem else ""
    for prepare in (nn.Module.train, without_batch_norms):
        try:
            differing = _differences(model, graph, example, prepare)
        except _CannotRunError as error:
            failed = error
            continue
        if differing:
            what = "in training, the traced graph does not do all that the model does"
            return f"{what}: {_listed(differing)} differ{why}"
        return None
    return f"the model cannot be trained on the example ({failed}), so its traced graph may train differently"


class _CannotRunError(Exception):
    """The model itself fails."""


def _differences(
    model: nn.Module, graph: nn.Module, example: Example, prepare: Callable[[nn.Module], object]
) -> list[str]:
    """Names of what differs, at least one seed long; rounding errors are told apart in double precision."""
    for seed in _SEEDS if prepare is not nn.Module.eval else _SEEDS[:1]:
        differing, by_chance = _compared(model, graph, example, prepare, seed)
        if differing and _dtype(model) == torch.float32:
            double, doubled = in_double(model, example)
            differing, _ = _compared(double, copy_network(graph).double(), doubled, prepare, seed)
        if differing or not by_chance:
            return differing
    return []


def _compared(
    model: nn.Module, graph: nn.Module, example: Example, prepare: Callable[[nn.Module], object], seed: int
) -> Compared:
    try:
        expected, drawn = _step(model, example, prepare, seed)
    except Exception as error:
        raise _CannotRunError(f"{type(error).__name__}: {first_line(error)}") from error
    try:
        found, drawn_too = _step(graph, example, prepare, seed)
    except Exception as error:  # noqa: BLE001 - what the model runs and the graph does not
        return [f"its outputs (the graph does not run, {type(error).__name__}: {first_line(error)})"], drawn
    return _differing(found, expected, TOLERANCE.get(_dtype(model), 1e-4)), drawn or drawn_too


def _differing(found: Step, expected: Step, tolerance: float) -> list[str]:
    if found.keys() != expected.keys():
        return ["the number of outputs"]
    largest = max((float(t.abs().max()) for name, t in expected.items() if _is_gradient(name) and t.numel()), default=0)
    return [name for name in expected if _differ(name, found[name], expected[name], tolerance, largest * _FLOOR)]


def _differ(name: str, found: Tensor, expected: Tensor, tolerance: float, floor: float) -> bool:
    if found.shape != expected.shape or not torch.equal(found.isfinite(), expected.isfinite()):
        return True
    found, expected = (value.nan_to_num(0, 0, 0) for value in (found, expected))
    if relative(found, expected) <= tolerance:
        return False
    return not _is_gradient(name) or float((found - expected).abs().max()) > tolerance * floor


def _step(network: nn.Module, example: Example, prepare: Callable[[nn.Module], object], seed: int) -> tuple[Step, bool]:
    """Outputs, gradients of a random direction, and buffers of a copy after one pass; whether the pass drew numbers."""
    clone = copy_on_write(network)  # a large network may be there several times already
    prepare(clone)
    clone.zero_grad(set_to_none=True)
    given, structure = pytree.tree_flatten(example)
    leaves = [_asking(leaf) for leaf in given]
    copies = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]  # forward may write into them
    with seeded(seed), torch.enable_grad():
        drawn = draws()
        outputs = tensors(run_model(clone, pytree.tree_unflatten(copies, structure)))
        by_chance = drawn()
        torch.manual_seed(seed)
        reached = [o for o in outputs if o.requires_grad]
        if reached:
            directions = [torch.randn_like(o) for o in reached]
            drawn = draws()
            torch.autograd.backward(reached, directions)
            by_chance = by_chance or drawn()
    return dict(_named(clone, leaves, outputs)), by_chance


def _named(network: nn.Module, inputs: list[Any], outputs: list[Tensor]) -> Iterator[tuple[str, Tensor]]:
    for index, output in enumerate(outputs):
        yield f"output {index}" if len(outputs) > 1 else "the output", output.detach()
    for name, parameter in network.named_parameters():
        yield f"the gradient of {name}", _gradient(parameter)
    for index, value in enumerate(inputs):
        if isinstance(value, Tensor) and value.requires_grad:
            yield f"the gradient of input {index}", _gradient(value)
    for name, buffer in network.named_buffers():
        yield f"the buffer {name}", buffer.detach()


def _gradient(tensor: Tensor) -> Tensor:
    if tensor.grad is None:
        return torch.zeros_like(tensor)
    return tensor.grad.to_dense() if tensor.grad.is_sparse else tensor.grad


def _asking(value: Any) -> Any:
    """A copy of an input that takes a gradient, where it can have one."""
    if not isinstance(value, Tensor):
        return value
    return value.detach().clone().requires_grad_(value.is_floating_point())


def _is_gradient(name: str) -> bool:
    return name.startswith("the gradient")


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
