"""What a rule sees: one call of the graph with labels for tensors, and the book the rules write into.

Longer than others, as the book is one class, whose tables belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from autoprune.space.sizes import OperationKind
from autoprune.space.tracing.labels import FIXED, Labels, lie_alike, spread, tighten, varies

Channels: TypeAlias = Tensor
"""(C,) one label per channel."""


@final
@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter or buffer of the model, before anything has labelled it.

    Attributes:
        is_weight: it is the weight of a convolution or linear layer: channels along two axes, whatever moves it.
    """

    name: str
    shape: tuple[int, ...]
    kind: Literal["parameter", "buffer"]
    is_weight: bool = False


@final
@dataclass(frozen=True, eq=False)
class WeightLabels:
    """Labels of a weight that `forward` computes (standardised, transposed, merged): channels along several axes.

    Products of channels with channels (Gram matrices, channel attention) have such labels, too.

    Attributes:
        factors: one label tensor per axis of the parameter it comes from, each constant along the other axes; an
            element stays where all its labels stay.
        source: the parameter it comes from, where its axes are still in place.
        of_activations: it comes from activations; no weight is among what it is made of.
    """

    factors: tuple[Tensor, ...]
    source: Parameter | None = None
    of_activations: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return tuple(self.factors[0].shape)


@final
@dataclass(frozen=True, eq=False)
class Call:
    """One operator call.

    Attributes:
        target: the ATen overload.
        name: its name without namespace and overload, "conv2d".
        arguments: argument name -> value; tensors are label tensors or `Parameter`s.
        value: what the call returned while tracing (a tensor without values, or a sequence with some).
        layer: path of the module that owns the weight, else of the module that made the call.
        place: where it is, for messages: "torch operator and module path".
        traced: argument name -> what it was while tracing: types and strides of tensors, which labels do not tell.
        read: numbers of the outputs that something reads, of a call that makes several.
    """

    target: Any
    name: str
    arguments: Mapping[str, Any]
    value: Any
    layer: str
    place: str
    traced: Mapping[str, Any] = field(default_factory=dict)
    read: frozenset[int] = frozenset()

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str) -> Any:
        """The argument, or None where the operator has none of this name."""
        return self.arguments.get(name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the (first) output."""
        value = self.value if isinstance(self.value, Tensor) else self.value[0]
        return tuple(int(n) for n in value.shape)

    @property
    def tensors(self) -> list[Any]:
        """All tensor arguments in order: label tensors and parameters."""
        return list(_tensors(self.arguments.values()))

    @property
    def mutates(self) -> bool:
        """True for in-place operators."""
        return self.name.endswith("_") and not self.name.startswith("_")

    @property
    def weights(self) -> list[Any]:
        """Arguments that are weights with channels along two axes, computed or not."""
        return [v for v in self.tensors if isinstance(v, WeightLabels) or (isinstance(v, Parameter) and v.is_weight)]

    @property
    def has_parameter(self) -> bool:
        """True where an argument is a parameter or buffer itself."""
        return any(isinstance(value, Parameter) for value in self.tensors)

    def with_labels(self, labels: Callable[[Any], Tensor]) -> dict[str, Any]:
        """The arguments with every tensor replaced by its labels."""

        def replace(value: Any) -> Any:
            if isinstance(value, Tensor | Parameter | WeightLabels):
                return labels(value)
            if isinstance(value, list | tuple):
                return [replace(v) for v in value]
            return value

        return {name: replace(value) for name, value in self.arguments.items()}


@final
@dataclass(frozen=True, eq=False)
class PendingOperation:
    """A matrix product before its sizes are known as functions of the widths."""

    layer: str
    kind: OperationKind
    coefficient: int
    sizes: tuple[Channels, ...]
    node: str


@final
@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """The output channels of a layer; a producer makes them, others (norms, depthwise) pass them on."""

    layer: str
    channels: Channels
    producer: bool
    positions: int


@final
@dataclass
class LabelGraph:
    """The book that rules write into: unions, axis labels, matrix products, and who writes which channels.

    Attributes:
        attention: which of heads and their dimensions can be cut; a product of both cannot be a width.
        values: name of a graph node -> labels of what it makes.
        heads: labels whose unit is a whole attention head.
        pieces: labels of what slices take, and of what lies before them.
        node: name of the graph node whose rule writes now.
        takes_any: values that may know no channels of their own (name of the node) -> the labels that they got later.
        fills: names of graph nodes that make tensors of one value.
        followed: name of such a node -> labels that it had before it met channels.
        spread: names of tensors of the model that forward spreads over channels: they are read as constants.
        spread_again: name of a graph node that spreads copies of one value once more -> labels before, and after it.
        together: names of such nodes at which those of before meet channels: what they make has the labels of before.
        graph_only: the model's own forward would compute something else when cut, though it would run.
    """

    attention: Literal["heads", "head_dim"] = "heads"
    unions: Labels = field(default_factory=Labels)
    values: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    heads: list[Channels] = field(default_factory=list)
    pieces: list[Tensor] = field(default_factory=list)
    node: str = ""
    takes_any: dict[str, Tensor | None] = field(default_factory=dict)
    fills: list[str] = field(default_factory=list)
    followed: dict[str, Tensor] = field(default_factory=dict)
    spread: set[str] = field(default_factory=set)
    spread_again: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    together: set[str] = field(default_factory=set)
    graph_only: bool = False
    axis_labels: dict[Parameter, list[Channels]] = field(default_factory=dict)
    element_labels: dict[Parameter, Tensor] = field(default_factory=dict)
    operations: list[PendingOperation] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    read_axes: dict[str, set[int]] = field(default_factory=dict)
    stuck: dict[str, tuple[int, str]] = field(default_factory=dict)  # layer -> outputs, why no rule follows it

    def is_parameter(self, value: Any) -> bool:
        """True for a parameter or buffer used as it is."""
        return isinstance(value, Parameter)

    def is_weight(self, value: Any) -> bool:
        """True for what has labels along several axes: parameters, and weights that `forward` computes."""
        return isinstance(value, Parameter | WeightLabels)

    def axes(self, parameter: Parameter) -> list[Channels]:
        """One label vector per axis of a weight; the same ones at every use, so that shared modules are tied."""
        if parameter not in self.axis_labels:
            self.axis_labels[parameter] = [self.unions.fresh(n) for n in parameter.shape]
        return self.axis_labels[parameter]

    def axes_of(self, weight: Parameter | WeightLabels, beside: Mapping[int, Channels] | None = None) -> list[Channels]:
        """One label vector per axis of a weight, also of a computed one.

        Args:
            weight: the weight.
            beside: axis -> the channels that it meets there: where two axes of the parameter were flattened into one,
                the one whose channels lie as these do is theirs, and the other stays whole.
        """
        if isinstance(weight, Parameter):
            return self.axes(weight)
        reason = "a weight's channels lie along one axis"
        found: dict[int, list[Channels]] = {}
        for factor in weight.factors:
            for dim in range(factor.ndim):
                if varies(factor, dim):
                    found.setdefault(dim, []).append(self.unions.per_channel(factor, dim, reason))
        axes = [torch.tensor(FIXED).expand(n) for n in weight.shape]
        for dim, vectors in found.items():
            met = (beside or {}).get(dim)
            axes[dim] = next((v for v in vectors if met is not None and lie_alike(v, met)), vectors[0])
            for vector in vectors:
                if vector is not axes[dim]:
                    self.unions.freeze(vector, reason)
        return axes

    def weight(self, value: Parameter | WeightLabels) -> WeightLabels:
        """A weight's labels, one tensor for each of its axes with more than one index."""
        if isinstance(value, WeightLabels):
            return value
        axes = [(dim, vector) for dim, vector in enumerate(self.axes(value)) if len(vector) > 1]
        return WeightLabels(tuple(spread(vector, dim, value.shape) for dim, vector in axes), value)

    def freeze(self, value: Tensor | Parameter | WeightLabels, reason: str) -> None:
        """Keep all channels of a value whole."""
        weighty = isinstance(value, WeightLabels) or (isinstance(value, Parameter) and value.is_weight)
        for labels in self.weight(value).factors if weighty else (self.labels(value),):  # type: ignore[arg-type]
            self.unions.freeze(labels, reason)

    def labels(self, value: Tensor | Parameter) -> Tensor:
        """Labels of a tensor; a parameter used like an activation gets one label per element."""
        if isinstance(value, Tensor):
            return value
        if len(value.shape) == 1:
            return self.axes_of(value)[0]
        if value.name in self.spread:
            return torch.tensor(FIXED).expand(value.shape)
        if value not in self.element_labels:
            self.element_labels[value] = self.unions.fresh(*value.shape, loose=True)
        return self.element_labels[value]

    def follow(self, value: Any, met: Tensor) -> None:
        """Note that a tensor of one value is as large as the channels that it meets: its size is an argument."""
        name = next((n for n in self.fills if self.followed.get(n, self.values.get(n, (None,))[0]) is value), None)
        if name is None or value.ndim != met.ndim:
            return
        for dim, length in enumerate(value.shape):
            met = met.narrow(dim, 0, length)
        if name in self.followed:
            self.unions.unite(self.values[name][0], met, "they meet the same tensor of one value")
        self.followed.setdefault(name, value)
        self.values[name] = (met,)

    def spread_out(self, labels: Tensor, dims: Collection[int]) -> None:
        """Note which tensor of the model meets channels only along dimensions over which forward spreads it.

        Its elements have labels, so the copies have none of their own; `trace` follows the channels once more.
        """
        if any(varies(labels, dim) for dim in dims):
            return
        first = int(labels.max())
        for parameter, own in self.element_labels.items():
            if own.numel() and int(own.flatten()[0]) <= first <= int(own.flatten()[-1]):
                self.spread.add(parameter.name)

    def keep_together(self) -> None:
        """Note where what was spread twice met channels along the dimensions over which it had been spread before."""
        for node, (before, after) in self.spread_again.items():
            if self.unions.met_along(after, [dim for dim in range(before.ndim) if varies(before, dim)]):
                self.together.add(node)

    def reads(self, weight: Parameter | WeightLabels, axis: int) -> None:
        """Note that this axis of a weight multiplies incoming channels."""
        parameter = weight if isinstance(weight, Parameter) else weight.source
        if parameter is not None:
            self.read_axes.setdefault(parameter.name, set()).add(axis)

    def give_up(self, call: Call, reason: str) -> None:
        """Note the layers whose weights an operator without a rule reads, and how many outputs stay as they are."""
        if isinstance(call.get("weight"), Tensor):  # computed in forward
            self.stuck.setdefault(call.layer or call.place, (call["weight"].shape[0], reason))
        for value in call.tensors:
            if isinstance(value, Parameter) and len(value.shape) > 1:
                layer = value.name.partition(".parametrizations.")[0]
                if layer == value.name:
                    layer = value.name.rpartition(".")[0] or value.name
                self.stuck.setdefault(layer, (value.shape[0], reason))

    def adopt(self, value: Tensor, labels: Tensor) -> bool:
        """Let a value that knew no channels have these; False where it is no value of its own but a part of one.

        Args:
            value: what the rule was given: a tensor of one value, or one that was spread over all channels.
            labels: those of the channels that it is used with, to be expanded to it.
        """
        names = [name for name, made in self.values.items() if any(known is value for known in made)]
        for name in names:
            if name not in self.takes_any:
                return False
            known = self.takes_any[name]
            if known is not None:
                shape = np.broadcast_shapes(known.shape, labels.shape)
                self.unions.unite(known.expand(shape), labels.expand(shape), "they are written into one tensor")
            self.takes_any[name] = labels
            self.values[name] = (labels.expand(value.shape),)
        return bool(names)

    def note_before(self, labels: Tensor) -> Tensor:
        """Note what lies before the result of the node that writes now: it is counted when sizes follow the widths."""
        self.values[f"{self.node}.before"] = (tighten(labels),)
        return self.values[f"{self.node}.before"][0]

    def operation(self, layer: str, kind: OperationKind, coefficient: int, sizes: Sequence[Channels]) -> None:
        """Note a matrix product: its multiply-adds are `coefficient` times the sizes."""
        self.operations.append(PendingOperation(layer, kind, coefficient, tuple(sizes), self.node))

    def write(self, layer: str, channels: Channels, *, producer: bool, positions: int = 1) -> None:
        """Note that a layer's outputs are these channels, at so many positions (batch x pixels or tokens)."""
        self.written.append(Written(layer, channels, producer, positions))


def _tensors(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, Tensor | Parameter | WeightLabels):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
