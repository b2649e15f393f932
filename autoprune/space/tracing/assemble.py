"""From solved labels to a space: channels that appear in the same places, equally often, are one width group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, final

import numpy as np
from torch import Tensor, nn

from autoprune.space.groups import (
    AxisLayout,
    FrozenPart,
    IntArray,
    SearchSpace,
    StepLayout,
    TensorLayout,
    WidthGroup,
    axis_size,
)
from autoprune.space.sizes import AffineSize, Operation
from autoprune.space.tracing.calls import LabelGraph, Parameter
from autoprune.space.tracing.labels import Classes
from autoprune.space.tracing.straighten import axes_of, straighten
from autoprune.space.tracing.unread import tie_unread


def assemble(graph: LabelGraph, model: nn.Module) -> SearchSpace:
    """Solve the unions and lay out groups (of any width), tensors, matrix products and the values in between."""
    tie_unread(graph)
    _freeze_non_rectangular(graph, straighten(graph))
    return _Assembly(graph, model, straighten(graph)).space()


def _freeze_non_rectangular(graph: LabelGraph, classes: Classes) -> None:
    """A parameter whose channels vary along two axes at once, or that is used in two ways, must stay whole."""
    for parameter, labels in graph.element_labels.items():
        free = classes.of(labels)
        if parameter in graph.axis_labels:
            graph.unions.freeze(labels, f"{parameter.name} is used both as a weight and as a tensor")
            for axis in graph.axis_labels[parameter]:
                graph.unions.freeze(axis, f"{parameter.name} is used both as a weight and as a tensor")
        elif sum(_varies(free, axis) for axis in range(free.ndim)) > 1:
            graph.unions.freeze(labels, f"{parameter.name} has channels along two axes at once")


def _varies(values: IntArray, axis: int) -> bool:
    return bool((values != values.take([0], axis)).any())


def _signatures(vectors: Sequence[IntArray]) -> dict[int, bytes]:
    """Class -> in which vectors it is, and how often in each."""
    found = [np.unique(vector, return_counts=True) for vector in vectors]
    if not found:
        return {}
    index = np.repeat(np.arange(len(found)), [len(classes) for classes, _ in found])
    classes = np.concatenate([classes for classes, _ in found])
    counts = np.concatenate([counts for _, counts in found])
    order = np.argsort(classes, kind="stable")
    unique, starts = np.unique(classes[order], return_index=True)
    parts = np.split(np.stack([index, counts], axis=1)[order], starts[1:])
    return {int(class_): part.tobytes() for class_, part in zip(unique, parts, strict=True)}


@final
class _Assembly:
    """The steps from classes to a space, over one graph."""

    def __init__(self, graph: LabelGraph, model: nn.Module, classes: Classes) -> None:
        self._graph = graph
        self._model = model
        self._classes = classes
        self._interned: dict[bytes, AxisLayout] = {}
        self._written = [(w.layer, frozenset(classes.of(w.channels).tolist())) for w in graph.written]
        self._places: IntArray = np.tile((-1, 0), (len(classes.reason) + 1, 1))  # class -> (group, channel)
        self._values = {
            name: [axis for labels in factors for axis in axes_of(labels, classes)]
            for name, factors in graph.values.items()
        }

    def space(self) -> SearchSpace:
        groups = self._groups()
        operations = tuple(
            Operation(op.layer, op.kind, op.coefficient, tuple(self._size(s, groups) for s in op.sizes))
            for op in self._graph.operations
        )
        form: Literal["module", "graph"] = "graph" if self._graph.graph_only else "module"
        return SearchSpace(groups, self._frozen(), operations, self._tensors(), steps=self._steps(), form=form)

    def _steps(self) -> tuple[StepLayout, ...]:
        steps = []
        for name, axes in self._values.items():
            layouts = [(dim, self._layout(vector)) for dim, vector in axes]
            steps.append(StepLayout(name, tuple((dim, layout) for dim, layout in layouts if layout is not None)))
        return tuple(step for step in steps if step.axes)

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

    def _groups(self) -> tuple[WidthGroup, ...]:
        produced = self._produced_classes()
        heads = {int(class_) for labels in self._graph.heads for class_ in np.unique(self._classes.of(labels))}
        vectors = [axis for axes in self._axes().values() for axis in axes if axis is not None]
        vectors += [self._classes.of(size) for op in self._graph.operations for size in op.sizes]
        vectors += list({v.tobytes(): v for axes in self._values.values() for _, v in axes}.values())
        signature = _signatures(vectors)
        members: dict[bytes, list[int]] = defaultdict(list)
        for class_ in produced:  # in order of first appearance
            members[signature.get(class_, b"")].append(class_)
        taken: dict[str, int] = defaultdict(int)
        groups = []
        for index, channels in enumerate(members.values()):
            self._places[channels] = np.stack(np.broadcast_arrays(index, np.arange(len(channels))), axis=1)
            layers, residual = self._members(channels[0]), bool(self._classes.residual[channels[0]])
            name, positions = produced[channels[0]]
            taken[name] += 1
            unique = name if taken[name] == 1 else f"{name}#{taken[name]}"
            width, kind = len(channels), "heads" if channels[0] in heads else "channels"
            choices = tuple(range(1, width + 1))
            groups.append(WidthGroup(unique, width, choices, layers, residual, kind, positions))
        return tuple(groups)

    def _produced_classes(self) -> dict[int, tuple[str, int]]:
        """Class -> first layer that produces it and at how many positions, in graph order; no others can be cut."""
        produced: dict[int, tuple[str, int]] = {}
        for written in self._graph.written:
            if written.producer:
                for class_ in self._classes.of(written.channels):
                    if class_ >= 0:
                        produced.setdefault(int(class_), (written.layer, written.positions))
        return produced

    def _members(self, class_: int) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for layer, classes in self._written if class_ in classes))

    def _layout(self, classes: IntArray | None) -> AxisLayout | None:
        if classes is None:
            return None
        places = self._places[classes]  # the last row is for what is no channel, -1
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
        for written in self._graph.written:
            if written.producer:
                for root in self._classes.root[written.channels.numpy()]:
                    reason = self._classes.why(int(root))
                    if reason is not None:
                        parts[written.layer, reason] += 1
        for layer, (channels, reason) in self._graph.stuck.items():
            parts.setdefault((layer, reason), channels)
        return tuple(FrozenPart(layer, channels, reason) for (layer, reason), channels in parts.items())
