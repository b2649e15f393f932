"""From solved labels to a space: channels that appear in the same places, equally often, are one width group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import final

import numpy as np
from torch import Tensor, nn

from autoprune.config import SpaceOptions
from autoprune.space.calls import LabelGraph, Parameter
from autoprune.space.choices import width_choices
from autoprune.space.groups import (
    AffineSize,
    AxisLayout,
    FrozenPart,
    IntArray,
    Operation,
    SearchSpace,
    TensorLayout,
    WidthGroup,
    axis_size,
)
from autoprune.space.labels import Classes


def assemble(graph: LabelGraph, model: nn.Module, options: SpaceOptions) -> SearchSpace:
    """Solve the unions and lay out groups, tensors and matrix products."""
    _freeze_non_rectangular(graph)
    classes = graph.unions.solve()
    return _Assembly(graph, model, classes).space(options)


def _freeze_non_rectangular(graph: LabelGraph) -> None:
    """A parameter whose channels vary along two axes at once, or that is used in two ways, must stay whole."""
    classes = graph.unions.solve()
    for parameter, labels in graph.element_labels.items():
        root = classes.root[labels.numpy()]
        if parameter in graph.axis_labels:
            graph.unions.freeze(labels, f"{parameter.name} is used both as a weight and as a tensor")
            for axis in graph.axis_labels[parameter]:
                graph.unions.freeze(axis, f"{parameter.name} is used both as a weight and as a tensor")
        elif sum(_varies(root, axis) for axis in range(root.ndim)) > 1:
            graph.unions.freeze(labels, f"{parameter.name} has channels along two axes at once")


def _varies(values: IntArray, axis: int) -> bool:
    return bool((values != values.take([0], axis)).any())


@final
class _Assembly:
    """The steps from classes to a space, over one graph."""

    def __init__(self, graph: LabelGraph, model: nn.Module, classes: Classes) -> None:
        self._graph = graph
        self._model = model
        self._classes = classes
        self._interned: dict[bytes, AxisLayout] = {}
        self._place: dict[int, tuple[int, int]] = {}  # class -> (group, channel)

    def space(self, options: SpaceOptions) -> SearchSpace:
        groups = self._groups(options)
        operations = tuple(
            Operation(op.layer, op.kind, op.coefficient, tuple(self._size(s, groups) for s in op.sizes))
            for op in self._graph.operations
        )
        return SearchSpace(groups, self._frozen(), operations, self._tensors())

    def _axes(self) -> dict[Parameter, list[IntArray | None]]:
        """Classes along each axis of every labelled parameter (None: nothing varies along it)."""
        axes: dict[Parameter, list[IntArray | None]] = {
            parameter: [self._classes.of(labels) for labels in vectors]
            for parameter, vectors in self._graph.axis_labels.items()
        }
        for parameter, labels in self._graph.element_labels.items():
            classes = self._classes.of(labels)
            axes[parameter] = [
                np.moveaxis(classes, axis, 0).reshape(length, -1)[:, 0] if _varies(classes, axis) else None
                for axis, length in enumerate(parameter.shape)
            ]
        return axes

    def _groups(self, options: SpaceOptions) -> tuple[WidthGroup, ...]:
        produced = self._produced_classes()
        signature: dict[int, list[tuple[int, int]]] = {class_: [] for class_ in produced}
        vectors = [axis for axes in self._axes().values() for axis in axes if axis is not None]
        vectors += [self._classes.of(size) for op in self._graph.operations for size in op.sizes]
        for index, vector in enumerate(vectors):
            for class_, count in zip(*np.unique(vector, return_counts=True), strict=True):
                if int(class_) in signature:
                    signature[int(class_)].append((index, int(count)))
        members: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
        for class_ in produced:  # in order of first appearance
            members[tuple(signature[class_])].append(class_)
        taken: dict[str, int] = defaultdict(int)
        groups = []
        for index, channels in enumerate(members.values()):
            self._place.update({class_: (index, position) for position, class_ in enumerate(channels)})
            layers, residual = self._members(channels[0]), channels[0] in self._classes.residual
            name = produced[channels[0]]
            taken[name] += 1
            unique = name if taken[name] == 1 else f"{name}#{taken[name]}"
            choices = width_choices(unique, len(channels), options)
            groups.append(WidthGroup(unique, len(channels), choices, layers, residual))
        return tuple(groups)

    def _produced_classes(self) -> dict[int, str]:
        """Class -> first layer that produces it, in graph order; only produced channels can be cut."""
        produced: dict[int, str] = {}
        for layer, labels, producer in self._graph.written:
            if producer:
                for class_ in self._classes.of(labels):
                    if class_ >= 0:
                        produced.setdefault(int(class_), layer)
        return produced

    def _members(self, class_: int) -> tuple[str, ...]:
        layers = (layer for layer, labels, _ in self._graph.written if class_ in self._classes.of(labels))
        return tuple(dict.fromkeys(layers))

    def _layout(self, classes: IntArray | None) -> AxisLayout | None:
        if classes is None:
            return None
        places = np.array([self._place.get(int(c), (-1, 0)) for c in classes], dtype=np.int64).reshape(-1, 2)
        if (places[:, 0] < 0).all():
            return None
        layout = AxisLayout(places[:, 0].copy(), places[:, 1].copy())
        return self._interned.setdefault(places.tobytes(), layout)

    def _size(self, labels: Tensor, groups: Sequence[WidthGroup]) -> AffineSize:
        layout = self._layout(self._classes.of(labels))
        return AffineSize(len(labels)) if layout is None else axis_size(layout, groups)

    def _tensors(self) -> tuple[TensorLayout, ...]:
        """Every parameter (cut or not, for the counts) and every buffer that is cut."""
        axes = {parameter.name: [self._layout(a) for a in vectors] for parameter, vectors in self._axes().items()}
        names: dict[int, list[str]] = defaultdict(list)  # tied tensors have several names
        tensors: dict[int, tuple[str, Tensor]] = {}
        for kind, named in (
            ("parameter", self._model.named_parameters(remove_duplicate=False)),
            ("buffer", self._model.named_buffers(remove_duplicate=False)),
        ):
            for name, tensor in named:
                names[id(tensor)].append(name)
                tensors[id(tensor)] = (kind, tensor)
        layouts = []
        for key, (kind, tensor) in tensors.items():
            known = next((axes[name] for name in names[key] if name in axes), None)
            layout = tuple(known) if known else (None,) * tensor.ndim
            reads = next((self._graph.read_axes[n] for n in names[key] if n in self._graph.read_axes), set())
            if kind == "parameter" or any(axis is not None for axis in layout):
                layouts.append(
                    TensorLayout(
                        names[key][0],
                        tuple(tensor.shape),
                        "parameter" if kind == "parameter" else "buffer",
                        layout,
                        tuple(names[key]),
                        tuple(sorted(reads)),
                    )
                )
        return tuple(layouts)

    def _frozen(self) -> tuple[FrozenPart, ...]:
        parts: dict[tuple[str, str], int] = defaultdict(int)
        for layer, labels, producer in self._graph.written:
            if producer:
                for root in self._classes.root[labels.numpy()]:
                    if int(root) in self._classes.reasons:
                        parts[layer, self._classes.reasons[int(root)]] += 1
        for layer, (channels, reason) in self._graph.stuck.items():
            parts.setdefault((layer, reason), channels)
        return tuple(FrozenPart(layer, channels, reason) for (layer, reason), channels in parts.items())
