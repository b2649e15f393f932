"""What a rule sees: one call of the graph with labels for tensors, and the book the rules write into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, final

from torch import Tensor

from autoprune.space.labels import Labels

Channels: TypeAlias = Tensor
"""(C,) one label per channel."""


@final
@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter or buffer of the model, before anything has labelled it."""

    name: str
    shape: tuple[int, ...]
    kind: Literal["parameter", "buffer"]


@final
@dataclass(frozen=True, eq=False)
class Call:
    """One operator call.

    Attributes:
        target: the ATen overload.
        name: its name without namespace and overload, "conv2d".
        arguments: argument name -> value; tensors are label tensors or `Parameter`s.
        value: what the call returned while exporting (a meta tensor, or a sequence with some).
        layer: path of the module that owns the weight, else of the module that made the call.
        place: where it is, for messages: "torch operator and module path".
    """

    target: Any
    name: str
    arguments: Mapping[str, Any]
    value: Any
    layer: str
    place: str

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
    def has_parameter(self) -> bool:
        """True where an argument is a parameter or buffer itself."""
        return any(isinstance(value, Parameter) for value in self.tensors)

    def with_labels(self, labels: Callable[[Any], Tensor]) -> dict[str, Any]:
        """The arguments with every tensor replaced by its labels."""

        def replace(value: Any) -> Any:
            if isinstance(value, Tensor | Parameter):
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
    kind: Literal["conv", "linear", "matmul"]
    coefficient: int
    sizes: tuple[Channels, ...]


@final
@dataclass
class LabelGraph:
    """The book that rules write into: unions, axis labels, matrix products, and who writes which channels."""

    unions: Labels = field(default_factory=Labels)
    axis_labels: dict[Parameter, list[Channels]] = field(default_factory=dict)
    element_labels: dict[Parameter, Tensor] = field(default_factory=dict)
    operations: list[PendingOperation] = field(default_factory=list)
    written: list[tuple[str, Channels, bool]] = field(default_factory=list)  # layer, labels, is it a producer
    read_axes: dict[str, set[int]] = field(default_factory=dict)
    stuck: dict[str, tuple[int, str]] = field(default_factory=dict)  # layer -> outputs, why no rule follows it

    def is_parameter(self, value: Any) -> bool:
        """True for a parameter or buffer used as it is."""
        return isinstance(value, Parameter)

    def axes(self, parameter: Parameter) -> list[Channels]:
        """One label vector per axis of a weight; the same ones at every use, so that shared modules are tied."""
        if parameter not in self.axis_labels:
            self.axis_labels[parameter] = [self.unions.fresh(n) for n in parameter.shape]
        return self.axis_labels[parameter]

    def labels(self, value: Tensor | Parameter) -> Tensor:
        """Labels of a tensor; a parameter used like an activation gets one label per element."""
        if isinstance(value, Tensor):
            return value
        if len(value.shape) == 1:
            return self.axes(value)[0]
        if value not in self.element_labels:
            self.element_labels[value] = self.unions.fresh(*value.shape)
        return self.element_labels[value]

    def reads(self, parameter: Parameter, axis: int) -> None:
        """Note that this axis of a weight multiplies incoming channels."""
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

    def operation(
        self, layer: str, kind: Literal["conv", "linear", "matmul"], coefficient: int, sizes: Sequence[Channels]
    ) -> None:
        """Note a matrix product: its multiply-adds are `coefficient` times the sizes."""
        self.operations.append(PendingOperation(layer, kind, coefficient, tuple(sizes)))

    def write(self, layer: str, channels: Channels, *, producer: bool) -> None:
        """Note that a layer's outputs are these channels."""
        self.written.append((layer, channels, producer))


def _tensors(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, Tensor | Parameter):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
