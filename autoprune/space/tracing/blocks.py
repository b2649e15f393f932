"""Depth: residual blocks that can be left out whole, found in the traced graph and offered as on/off choices.

A block is a module that runs once, from whose input to whose one output a path of sums leads past every matrix product,
with the same shape and the same channels at both ends: its output can become its input (stochastic depth, Huang et al.
2016, arXiv 1603.09382, leaves such blocks out while training). A graph that `make_fx` recorded does not say which
module made a call; no block is found there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from typing import Any, TypeAlias, final

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from autoprune.randomness import untouched
from autoprune.space.copying import copy_network
from autoprune.space.groups import AxisLayout, Block, SearchSpace, WidthGroup
from autoprune.space.sizes import AffineSize
from autoprune.space.tracing.program import Example, Program, run_model
from autoprune.space.tracing.resize import name_of, operator_name

Axes: TypeAlias = Mapping[str, Mapping[int, AxisLayout]]
"""Name of a value -> dimension -> layout of what can be cut there."""

_SUMS = ("add", "add_")


@final
class Skip(nn.Module):
    """What stands where a block was, called like it: returns the input that the block would have added to."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.argument, self.outputs = block.argument, block.outputs

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the input; where the block returned a tuple, with None for all but its output."""
        value = args[self.argument] if isinstance(self.argument, int) else kwargs[self.argument]
        return (value, *[None] * (self.outputs - 1)) if self.outputs else value

    def extra_repr(self) -> str:
        """Which input, for `print(model)`."""
        return f"argument={self.argument!r}"


def find_blocks(program: Program, space: SearchSpace, products: Sequence[str]) -> tuple[Block, ...]:
    """The innermost residual blocks, in graph order; no two share a call.

    Args:
        program: the traced graph.
        space: its space, with the layouts of all values.
        products: name of the graph node of each of `space.operations`.
    """
    axes: Axes = {step.name: dict(step.axes) for step in space.steps}
    found = []
    for path, nodes in _single_calls(program).items():
        ends = _ends(program, nodes, axes, frozenset(products))
        if ends and _owns_what_it_reads(program, space, path, set(nodes)):
            found.append((_block(path, nodes, ends, space, products), set(nodes)))
    blocks: list[Block] = []
    taken: set[fx.Node] = set()
    found.reverse()  # inner modules first
    for block, calls in sorted(found, key=lambda pair: len(pair[1])):
        if taken.isdisjoint(calls):
            blocks.append(block)
            taken |= calls
    order = {node.name: index for index, node in enumerate(program.nodes)}
    return tuple(sorted(blocks, key=lambda block: order[block.output]))


def with_calls(space: SearchSpace, model: nn.Module, example: Example) -> SearchSpace:
    """Return the space whose blocks know how their modules are called: a copy of the model runs once and is watched.

    A guess where several inputs have the output's shape (the first is taken); cut networks are verified in any case.
    """
    copied = copy_network(model).eval()
    seen: dict[str, Block] = {}

    def watch(block: Block) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any) -> None:
            output = next(leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor))
            given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
            tensors = [(key, value) for key, value in given if isinstance(value, Tensor)]
            fitting = [key for key, v in tensors if v.shape == output.shape and v.dtype == output.dtype]
            outputs = len(made) if type(made) is tuple else 0
            seen[block.name] = replace(block, argument=(*fitting, 0)[0], outputs=outputs)

        return hook

    for block in space.blocks:
        copied.get_submodule(block.name).register_forward_hook(watch(block), with_kwargs=True)
    with untouched(), torch.no_grad():
        run_model(copied, example)
    return replace(space, blocks=tuple(seen.get(block.name, block) for block in space.blocks))


def offer_blocks(space: SearchSpace, exclude: Sequence[str] = ()) -> SearchSpace:
    """Return the space in which every block is a choice, on (1) or off (0), after the groups that are there.

    What lies in a block that is off costs nothing, whatever its widths; those have no effect then.

    Args:
        space: a space whose blocks are found.
        exclude: shell-style patterns; a block with a layer that matches one stays.
    """
    offered = [block for block in space.blocks if not any(_matches(space, block, pattern) for pattern in exclude)]
    if not offered:
        note = "blocks: no residual block of this model can be left out; the option changes nothing"
        return replace(space, notes=(*space.notes, note))
    groups = tuple(WidthGroup(block.group, 1, (0, 1), _layers(space, block), kind="blocks") for block in offered)
    operations = list(space.operations)
    for number, block in enumerate(offered):
        switch = AffineSize(0, ((len(space.groups) + number, 1),))
        for index in block.operations:
            operations[index] = replace(operations[index], sizes=(*operations[index].sizes, switch))
    return replace(space, groups=(*space.groups, *groups), operations=tuple(operations))


def without(program: Program, blocks: Sequence[Block]) -> Program:
    """The graph without these blocks (in graph order): what reads their outputs reads their inputs.

    Its nodes keep their names; the tensors of the blocks are no longer among its placeholders.
    """
    if not blocks:
        return program
    graph = copy.deepcopy(program.graph)
    for node, copied in zip(program.nodes, graph.nodes, strict=True):
        copied.name = node.name  # a copy gives what is called like a builtin (input) another name
    nodes = {node.name: node for node in graph.nodes}
    for block in reversed(blocks):  # a block's input may be the output of the block before
        nodes[block.output].replace_all_uses_with(nodes[block.input])
    gone = {block.name for block in blocks}
    for node in reversed(list(graph.nodes)):
        unread = node.op == "placeholder" and node.name in program.tensors and not node.users
        if unread or not gone.isdisjoint(path for _, path in _stack(node)):
            graph.erase_node(node)
    left = {node.name for node in graph.nodes}
    tensors = {placeholder: named for placeholder, named in program.tensors.items() if placeholder in left}
    return replace(program, graph=graph, tensors=tensors)


def _single_calls(program: Program) -> dict[str, list[fx.Node]]:
    """Path of every module below the model that runs exactly once -> its calls, those of modules inside included."""
    keys: dict[str, set[str]] = {}
    nodes: dict[str, list[fx.Node]] = {}
    for node in program.nodes:
        for key, path in _stack(node):
            keys.setdefault(path, set()).add(key)
            nodes.setdefault(path, []).append(node)
    return {path: calls for path, calls in nodes.items() if path and len(keys[path]) == 1}


def _stack(node: fx.Node) -> Iterator[tuple[str, str]]:
    """(key, path) of every module that was running; each call of a module has a key of its own."""
    for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
        yield key, path


def _ends(
    program: Program, nodes: Sequence[fx.Node], axes: Axes, products: frozenset[str]
) -> tuple[fx.Node, fx.Node] | None:
    """The value that enters a residual block and the one that leaves it; None where these calls are no such block."""
    inside = set(nodes)
    leaving = [node for node in nodes if any(user not in inside for user in node.users)]
    if len(leaving) != 1:
        return None
    output = leaving[0]
    read = dict.fromkeys(value for node in nodes for value in node.all_input_nodes if value not in inside)
    varying = [value for value in read if value.op != "placeholder" or value.name in program.inputs]
    ends = [v for v in varying if _alike(v, output, axes) and _passes_by(v, output, nodes, products)]
    return (ends[0], output) if len(ends) == 1 and _stay_apart(ends[0], output, inside) else None


def _alike(value: fx.Node, output: fx.Node, axes: Axes) -> bool:
    """True where the one can take the other's place: shape, type, and the channel at every index."""
    one, other = value.meta.get("val"), output.meta.get("val")
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return False
    before, after = axes.get(name_of(value), {}), axes.get(name_of(output), {})
    same_channels = before.keys() == after.keys() and all(
        np.array_equal(before[dim].group, after[dim].group) and np.array_equal(before[dim].channel, after[dim].channel)
        for dim in before
    )
    return one.shape == other.shape and one.dtype == other.dtype and same_channels


def _passes_by(value: fx.Node, output: fx.Node, nodes: Sequence[fx.Node], products: frozenset[str]) -> bool:
    """True where the value reaches the output past every matrix product, and what comes out of one is added to it."""
    carried, branch, added = {value}, set[fx.Node](), False
    for node in nodes:
        read = node.all_input_nodes
        from_carried, from_branch = not carried.isdisjoint(read), not branch.isdisjoint(read)
        if from_carried and node.name not in products:
            carried.add(node)
            added |= from_branch and operator_name(node) in _SUMS
        elif from_carried or from_branch:
            branch.add(node)
    return added and output in carried


def _owns_what_it_reads(program: Program, space: SearchSpace, path: str, inside: set[fx.Node]) -> bool:
    """True where nobody else reads the tensors that go with the module, under whatever name."""
    names = {name: layout.names for layout in space.tensors for name in layout.names}
    for node in program.nodes:
        if node.name in program.tensors:
            name = program.tensors[node.name][0]
            ours = any(other.startswith(f"{path}.") for other in names.get(name, (name,)))
            if ours and not inside.issuperset(node.users):
                return False
    return True


def _stay_apart(value: fx.Node, output: fx.Node, inside: set[fx.Node]) -> bool:
    """False where others that read the input would see what is written into the output in place."""
    written = any(operator_name(user).endswith("_") and user.args[0] is output for user in output.users)
    return not written or inside.issuperset(value.users)


def _block(
    path: str, nodes: Sequence[fx.Node], ends: tuple[fx.Node, fx.Node], space: SearchSpace, products: Sequence[str]
) -> Block:
    names = {node.name for node in nodes}
    operations = tuple(index for index, product in enumerate(products) if product in names)
    tensors = tuple(
        layout.name
        for layout in space.tensors
        if all(name.startswith(f"{path}.") for name in layout.names or (layout.name,))
    )
    return Block(path, ends[0].name, ends[1].name, operations, tensors)


def _layers(space: SearchSpace, block: Block) -> tuple[str, ...]:
    return tuple(dict.fromkeys(space.operations[index].layer for index in block.operations))


def _matches(space: SearchSpace, block: Block, pattern: str) -> bool:
    return any(fnmatch(layer, pattern) for layer in (block.name, *_layers(space, block)))
