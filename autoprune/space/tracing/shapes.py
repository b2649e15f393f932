"""Values and calls of the traced graph, their sizes as functions of the widths: memory and latency follow from them.

How long a value is held is that of eager PyTorch: in module form as `activations.py` tells; in graph form, which lets
go of what nobody reads any more, until its last use.

Longer than others, as one walk through the graph carries sizes, views and lifetimes at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, fx, nn

from autoprune.space.groups import AxisLayout, SearchSpace, TensorLayout, axis_size
from autoprune.space.sizes import Activation, AffineSize, KernelCall
from autoprune.space.tracing.activations import Frames, module_calls
from autoprune.space.tracing.program import Program
from autoprune.space.tracing.resize import NO_KERNEL, named_arguments, operator_name

Sizes: TypeAlias = tuple[AffineSize, ...]

_MAY_COPY = ("reshape", "contiguous", "to", "flatten")
"""Operators whose schema speaks of a view, but whose result may as well be a copy."""

_DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
"""In evaluation these return their input, which neither schema nor traced values tell."""


def with_shapes(space: SearchSpace, program: Program, model: nn.Module) -> SearchSpace:
    """Return the space with its activations and calls, the dtypes of its tensors, and the buffers that are never cut.

    Args:
        space: as it will be used: options applied, verified.
        program: the graph it comes from.
        model: the traced model; only read.
    """
    tensors = (*(_with_dtype(t, model) for t in space.tensors), *_uncut_buffers(space, model))
    inside = {block.name: f"{block.name}." for block in space.blocks}
    blocks = tuple(
        replace(block, tensors=tuple(t.name for t in tensors if _all_below(t.names or (t.name,), inside[block.name])))
        for block in space.blocks
    )
    whole = replace(space, tensors=tensors, blocks=blocks)
    return _Walk(whole, program).space()


def _with_dtype(layout: TensorLayout, model: nn.Module) -> TensorLayout:
    path, _, attribute = layout.name.rpartition(".")
    return replace(layout, dtype=_dtype(getattr(model.get_submodule(path), attribute)))


def _uncut_buffers(space: SearchSpace, model: nn.Module) -> Iterator[TensorLayout]:
    known = {name for layout in space.tensors for name in (layout.names or (layout.name,))}
    names: dict[int, list[str]] = {}
    buffers = dict(model.named_buffers(remove_duplicate=False))
    for name, buffer in buffers.items():
        names.setdefault(id(buffer), []).append(name)
    for same in names.values():
        if known.isdisjoint(same):
            buffer = buffers[same[0]]
            axes = (None,) * buffer.ndim
            yield TensorLayout(same[0], tuple(buffer.shape), "buffer", axes, tuple(same), dtype=_dtype(buffer))


def _all_below(names: Sequence[str], path: str) -> bool:
    return all(name.startswith(path) for name in names)


def value_axes(space: SearchSpace, program: Program) -> dict[str, Mapping[int, AxisLayout]]:
    """Name of every value of the graph that can be cut, tensors of the model too -> dimension -> its layout."""
    axes: dict[str, Mapping[int, AxisLayout]] = {step.name: dict(step.axes) for step in space.steps}
    by_name = {name: tensor for tensor in space.tensors for name in (tensor.names or (tensor.name,))}
    for placeholder, (name, _) in program.tensors.items():
        layouts = by_name[name].axes if name in by_name else ()
        axes[placeholder] = {dim: axis for dim, axis in enumerate(layouts) if axis is not None}
    return axes


@final
class _Walk:
    """The graph from its first node to its last."""

    def __init__(self, space: SearchSpace, program: Program) -> None:
        self._space, self._program = space, program
        self._axes = value_axes(space, program)
        self._switch = {block.name: index for index, block in space.presence.blocks.items()}
        self._found: list[Activation] = []
        self._calls: list[KernelCall] = []
        self._of: dict[tuple[fx.Node, int | None], int] = {}  # (node, number of the output) -> its activation
        self._owner: dict[int, int] = {}  # storage of a traced value -> the activation that it was made for, or -1
        self._fixed: set[fx.Node] = set()  # parameters, buffers, constants
        self._last: dict[int, int] = {}  # activation that owns its memory -> last call that needs it
        self._made_by: dict[int, int | None] = {}  # activation -> the call that makes it
        calls = [n for n in program.nodes if n.op == "call_function" and operator_name(n) not in NO_KERNEL]
        self._frames = Frames(calls) if space.form == "module" else None

    def space(self) -> SearchSpace:
        """The space with what was found."""
        for node in self._program.nodes:
            if node.op == "placeholder":
                self._place(node)
            elif node.op == "call_function" and operator_name(node) not in NO_KERNEL:
                self._call(node)
        for value in self._program.outputs:
            if isinstance(value, fx.Node):
                for index in self._read(value):
                    self._hold(index, len(self._calls) - 1)
        found = tuple(
            a if a.last < 0 or a.storage != index else replace(a, last=self._last[index])
            for index, a in enumerate(self._found)
        )
        return replace(self._space, activations=found, calls=tuple(self._calls))

    def _place(self, node: fx.Node) -> None:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return
        if node.name not in self._program.inputs:
            self._fixed.add(node)
            self._owner[_memory(value)] = -1
            return
        self._of[node, None] = index = len(self._found)
        sizes = self._sizes(node.name, value)
        self._found.append(Activation(node.name, sizes, value.element_size(), index, dtype=_dtype(value)))
        self._owner.setdefault(_memory(value), index)
        self._made_by[index] = None

    def _call(self, node: fx.Node) -> None:
        number, modules = len(self._calls), list(module_calls(node).values())
        reads = [index for value in node.all_input_nodes for index in self._read(value)]
        for index in reads:
            self._hold(index, self._frames.held(self._made_by[index], number) if self._frames else number)
        arguments = named_arguments(node, node.args, node.kwargs) if hasattr(node.target, "_schema") else {}
        in_order = [(leaf, self._read(leaf)) for leaf in _nodes(arguments.values() or node.args)]
        made = self._made(node, reads, number)
        weights = [leaf for leaf, _ in in_order if leaf in self._fixed]
        self._calls.append(
            KernelCall(
                operator_name(node),
                self._layer(weights) or next(reversed(modules), ""),
                tuple(index for _, read in in_order for index in read),
                made,
                tuple(self._sizes(weight.name, weight.meta["val"]) for weight in weights),
                _settings(node, arguments),
                next((self._switch[path] for path in modules if path in self._switch), -1),
                tuple(_splits(node, [leaf for leaf, read in in_order if read])),
            )
        )

    def _made(self, node: fx.Node, reads: Sequence[int], number: int) -> tuple[int, ...]:
        value = node.meta.get("val")
        several = isinstance(value, list | tuple)
        made = []
        for part, tensor in enumerate(value if several else [value]):  # type: ignore[arg-type]
            if not isinstance(tensor, Tensor):
                continue
            name, index = f"{node.name}.{part}" if several else node.name, len(self._found)
            storage = self._storage(node, tensor, index)
            batched = any(self._found[read].batched for read in reads)
            sizes, size = self._sizes(name, tensor), tensor.element_size()
            self._found.append(Activation(name, sizes, size, storage, number, batched, _dtype(tensor)))
            self._of[node, part if several else None] = index
            self._made_by[index] = number
            self._hold(index, number)
            made.append(index)
        return tuple(made)

    def _storage(self, node: fx.Node, tensor: Tensor, index: int) -> int:
        """Whose memory the value lies in: told by the traced values, or by the operator's schema."""
        memory = _memory(tensor)
        if memory in self._owner:
            return self._owner[memory]
        self._owner[memory] = index
        given = _viewed(node)
        if given is None:
            return index
        read = self._read(given)
        if given in self._fixed or read:
            self._owner[memory] = self._found[read[0]].storage if read else -1
        return self._owner[memory]

    def _hold(self, index: int, call: int) -> None:
        """Keep the memory of a value, or of what it is a view of, until after this call."""
        owner = self._found[index].storage
        if owner >= 0:
            self._last[owner] = max(self._last.get(owner, -1), call)

    def _read(self, node: fx.Node) -> tuple[int, ...]:
        """Activations that an argument stands for: several where a node makes several and is read as a whole."""
        if operator_name(node) == "getitem":
            key: Any = tuple(node.args)  # the node that makes several, and which one
            return (self._of[key],) if key in self._of else ()  # no tensor: a number, or None
        if (node, None) in self._of:
            return (self._of[node, None],)
        return tuple(index for (made, _), index in self._of.items() if made is node)

    def _sizes(self, name: str, value: Tensor) -> Sizes:
        axes = self._axes.get(name, {})
        return tuple(
            axis_size(axes[dim], self._space.groups) if dim in axes else AffineSize(int(n))
            for dim, n in enumerate(value.shape)
        )

    def _layer(self, weights: Sequence[fx.Node]) -> str:
        names = (self._program.tensors[w.name][0] for w in weights if w.name in self._program.tensors)
        name = next(names, "")
        return name.rpartition(".")[0] or name


def _viewed(node: fx.Node) -> fx.Node | None:
    """The argument in whose memory the result lies, by the operator's schema."""
    schema, name = getattr(node.target, "_schema", None), operator_name(node)
    if schema is None:
        return None
    arguments = named_arguments(node, node.args, node.kwargs)
    if name in _DROPOUTS:
        return None if arguments["train"] else arguments["input"]
    aliased = [a.name for a in schema.arguments if a.alias_info is not None]
    given = arguments.get(aliased[0]) if aliased and any(r.alias_info for r in schema.returns) else None
    if not isinstance(given, fx.Node) or (name in _MAY_COPY and _copies(node.meta["val"], given.meta["val"])):
        return None
    return given


def _copies(made: Tensor, given: Tensor) -> bool:
    """True where a result that could be a view cannot be one."""
    return made.dtype != given.dtype or not (given.is_contiguous() or made.stride() == given.stride())


def _splits(node: fx.Node, operands: Sequence[fx.Node]) -> Iterator[tuple[int, int]]:
    """`KernelCall.splits`: as eager PyTorch lays the values out, which the traced ones tell."""
    name, made = operator_name(node), node.meta["val"]
    if name not in ("matmul", "linear"):
        return
    leading = made.ndim - (1 if name == "linear" else 2)
    values = [operand.meta["val"] for operand in operands]
    if any(value.ndim < 2 for value in values) or max((v.ndim for v in values), default=0) != made.ndim:
        return  # a product with a vector
    for at, value in enumerate(values):
        stride = value.expand(*made.shape[:-2], *value.shape[-2:]).stride()
        yield from ((at, dim) for dim in range(leading - 1) if stride[dim] != stride[dim + 1] * made.shape[dim + 1])


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _memory(value: Tensor) -> int:
    """Which memory a traced value stands for; a sparse one has none that could be shared."""
    return int(value.untyped_storage()._cdata) if value.layout is torch.strided else id(value)


def _nodes(values: Any) -> Iterator[fx.Node]:
    for value in values:
        if isinstance(value, fx.Node):
            yield value
        elif isinstance(value, list | tuple):
            yield from _nodes(value)


def _settings(node: fx.Node, arguments: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Arguments that are no tensors, with the schema's defaults."""
    schema = getattr(node.target, "_schema", None)
    defaults = {a.name: a.default_value for a in schema.arguments if a.has_default_value()} if schema else {}
    given = {**defaults, **arguments}
    return tuple((name, _plain(value)) for name, value in given.items() if not list(_nodes([value])))


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_plain(part) for part in value)
    if isinstance(value, torch.dtype | torch.device | torch.layout | torch.memory_format):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
