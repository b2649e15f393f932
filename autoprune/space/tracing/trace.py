"""From a model and an example input to a search space: trace the graph once, follow channels through it."""

from __future__ import annotations

import operator
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, fx, nn

from autoprune.config.space import SpaceOptions
from autoprune.space.groups import LayerBits, Resolution, SearchSpace, WidthGroup
from autoprune.space.options.bits import bit_groups, bit_space, unroundable
from autoprune.space.options.choices import apply_options, freeze_groups
from autoprune.space.options.density import density_space
from autoprune.space.options.factors import rank_space, refusals
from autoprune.space.options.resolution import resolutions
from autoprune.space.tracing.assemble import assemble
from autoprune.space.tracing.blocks import find_blocks, offer_blocks, with_calls
from autoprune.space.tracing.calls import Call, LabelGraph, Parameter, WeightLabels
from autoprune.space.tracing.functions import FunctionCall
from autoprune.space.tracing.labels import FIXED, tighten
from autoprune.space.tracing.program import Example, Program, record
from autoprune.space.tracing.rules import OperatorRule, computed_weight, rule_of
from autoprune.space.tracing.rules.base import unknown, varying
from autoprune.space.tracing.rules.whole_products import whole_product
from autoprune.space.tracing.weights import weights_of
from autoprune.texts import first_line


@final
@dataclass(frozen=True, eq=False)
class Traced:
    """A traced model.

    Attributes:
        space: its width groups, not yet verified.
        program: the graph of one forward pass.
        example: the inputs it was traced with.
        label_seconds: CPU seconds spent on following channels; `program.seconds` are those of tracing.
        resolution: what joins it likewise.
        bits: groups that join those of the space once it is verified: rounding changes no shape.
    """

    space: SearchSpace
    program: Program
    example: Example
    label_seconds: float
    bits: tuple[tuple[WidthGroup, LayerBits], ...] = ()
    resolution: Resolution | None = None

    @property
    def export_seconds(self) -> float:
        """How long the tracer took."""
        return self.program.seconds

    @property
    def code_fingerprint(self) -> str:
        """A hash of the graph, the same for the same model code and input shape."""
        return self.program.fingerprint


def trace(model: nn.Module, example: Example, *, options: SpaceOptions | None = None) -> Traced:
    """Find the width groups of a model; the model is only read.

    Args:
        model: any module that `torch.export` or `make_fx` can trace.
        example: one tensor, a tuple of positional inputs, or a mapping of keyword inputs; costs are those of one
            forward pass of this example, so a batch of 1 gives costs per image.
        options: width choices, ties, exclusions.

    Raises:
        TraceError: the model cannot be traced.
        SpaceError: an option names something that the model does not have.
    """
    chosen = options or SpaceOptions()
    program = record(model, example)
    started = time.process_time()
    space, products = _groups(program, model, example, chosen)
    if chosen.density is not None:
        space = density_space(space, chosen.density, chosen.exclude)
        return Traced(space, program, example, time.process_time() - started)
    if chosen.rank is not None:
        space = rank_space(space, chosen.rank, refusals(model), chosen.exclude)
        return Traced(space, program, example, time.process_time() - started)
    bits: tuple[tuple[WidthGroup, LayerBits], ...] = ()
    if chosen.bits is not None:
        bits, frozen = bit_groups(space, chosen.bits, unroundable(model), chosen.exclude)
        if not chosen.bits.widths:
            return Traced(bit_space(space, bits, frozen), program, example, time.process_time() - started)
        space = replace(space, frozen=(*space.frozen, *frozen))
    resolution = None
    if chosen.resolution is not None:
        of_image = partial(_space_of, model, options=chosen)
        resolution = resolutions(model, example, space, chosen.resolution, of_image)
    tied = "these channels can only go all together"
    space = freeze_groups(space, {i: tied for i, group in enumerate(space.groups) if group.width == 1})
    blocks = find_blocks(program, space, products)
    space = apply_options(replace(space, blocks=blocks), chosen)
    if chosen.blocks:
        space = offer_blocks(with_calls(space, model, example), chosen.exclude)
    return Traced(space, program, example, time.process_time() - started, bits, resolution)


def _space_of(model: nn.Module, image: Tensor, *, options: SpaceOptions) -> SearchSpace:
    """The groups at another size of images."""
    return _groups(record(model, image), model, image, options)[0]


def _groups(
    program: Program, model: nn.Module, example: Example, options: SpaceOptions
) -> tuple[SearchSpace, list[str]]:
    """The groups, of any width, and the nodes of the matrix products."""
    weights, spread, together = weights_of(model, program), set[str](), set[str]()
    while True:
        graph = LabelGraph(attention=options.attention, spread=set(spread), together=set(together))
        _Labelling(program, graph, weights).run(example)
        graph.keep_together()
        if graph.spread == spread and graph.together == together:
            return assemble(graph, model), [operation.node for operation in graph.operations]
        spread, together = graph.spread, graph.together


@final
class _Labelling:
    """Runs the graph once, on labels."""

    def __init__(self, program: Program, graph: LabelGraph, weights: frozenset[str]) -> None:
        self._program = program
        self._graph = graph
        self._weights = weights

    def run(self, example: Example) -> None:
        with torch.no_grad():
            outputs = self._program.run(example, self._place, self._call)
        for value in torch.utils._pytree.tree_leaves(outputs):
            if isinstance(value, Tensor | Parameter | WeightLabels):
                self._graph.freeze(value, "the model's output")

    def _place(self, node: fx.Node, given: Any) -> Any:
        if node.name in self._program.tensors:
            name, kind = self._program.tensors[node.name]
            return Parameter(name, tuple(node.meta["val"].shape), kind, name in self._weights)
        return torch.tensor(FIXED).expand(given.shape) if isinstance(given, Tensor) else given

    def _call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        if node.target is operator.getitem:
            return args[0][args[1]]
        if isinstance(node.target, FunctionCall):
            return None
        call = _describe(node, args, kwargs)
        self._graph.node = node.name
        rule = rule_of(node.target)
        noted = len(self._graph.operations)
        made = self._labels(call, rule)
        if len(self._graph.operations) == noted and (product := whole_product(call)) is not None:
            self._graph.operation(call.layer, product[0], product[1], [])
        if rule.adopts:
            self._graph.takes_any[node.name] = None
        made = self._noted(node.name, made)
        if rule.note is not None and not call.weights:
            rule.note(self._graph, call, made)
        return made

    def _labels(self, call: Call, rule: OperatorRule) -> Any:
        try:
            if rule.reads and isinstance(call.arguments.get("input"), WeightLabels) and call.name != "linear":
                call = self._one_kind(call)
            if call.weights and not rule.reads:
                return computed_weight(self._graph, call, rule)
            return rule.labels(self._graph, call)
        except Exception as error:  # noqa: BLE001 - a form of the operator that its rule has not met; whole is never wrong
            what = f"its rule does not know this form of it ({type(error).__name__}: {first_line(error)})"
            return unknown(self._graph, call, what)

    def _one_kind(self, call: Call) -> Call:
        """The call, its input with the channels that it reads as such, those of the other kind frozen."""
        given: WeightLabels = call["input"]
        dim = len(given.shape) - len(call["weight"].shape) + 1 if call.get("weight") is not None else None
        read = [labels for labels in given.factors if given.of_activations and varying(labels) == [dim]][:1]
        for labels in given.factors:
            if not any(labels is one for one in read):
                reason = f"{call.place}: {call.name} of what has channels along two dimensions"
                self._graph.unions.freeze(labels, reason)
        kept = read[0] if read else torch.tensor(FIXED).expand(call.traced["input"].shape)
        return replace(call, arguments={**call.arguments, "input": kept})

    def _noted(self, name: str, made: Any) -> Any:
        """Remember the labels of every value, stored as compactly as they can be."""
        if isinstance(made, Tensor):
            made = tighten(made)
            self._graph.values[name] = (made,)
        elif isinstance(made, WeightLabels):
            made = replace(made, factors=tuple(map(tighten, made.factors)))
            self._graph.values[name] = made.factors
        elif isinstance(made, list | tuple):
            return [self._noted(f"{name}.{index}", value) for index, value in enumerate(made)]
        return made


def _describe(node: fx.Node, args: Any, kwargs: Any) -> Call:
    target: Any = node.target
    name = getattr(target, "__name__", str(target)).split(".")[0]
    schema = getattr(target, "_schema", None)
    names = [a.name for a in schema.arguments] if schema else [f"arg{i}" for i in range(len(args))]
    arguments: dict[str, Any] = dict(zip(names, args, strict=False)) | dict(kwargs)
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    module = stack[-1][0] if stack else ""
    weight = arguments.get("weight")
    layer = module.partition(".parametrizations.")[0]
    if isinstance(weight, Parameter):
        layer = weight.name.rpartition(".")[0] or weight.name
    elif not layer and isinstance(weight, WeightLabels) and weight.source is not None:
        layer = weight.source.name.rpartition(".")[0] or weight.source.name
    place = f"{name} in {module or 'the model'}"
    read = frozenset(user.args[1] for user in node.users if user.target is operator.getitem)
    return Call(target, name, arguments, node.meta.get("val"), layer, place, _traced(node, names), read)  # type: ignore[arg-type]


def _traced(node: fx.Node, names: Sequence[str]) -> dict[str, Any]:
    """Argument name -> its value while tracing."""
    args, kwargs = fx.node.map_arg((tuple(node.args), dict(node.kwargs)), lambda given: given.meta.get("val"))
    return dict(zip(names, args, strict=False)) | dict(kwargs)
