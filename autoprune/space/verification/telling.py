"""Inputs that let every part of a network be heard: equal tokens would hide attention, a black picture everything.

What is constant, or repeats, along a dimension of an input is replaced where the network then tells more: fewer values
inside are constant along a dimension. The example stays as it is where the network refuses anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.tracing.program import Example, Program, run_model, tensors
from autoprune.space.tracing.resize import named_arguments, operator_name
from autoprune.space.verification.comparison import relative

Other: TypeAlias = Callable[[], Tensor]
"""Draws another value for an input."""


def telling(model: nn.Module, program: Program, example: Example, tolerance: float) -> Example:
    """The example with other values where an input repeats itself.

    Args:
        model: the network, scrambled; only read.
        program: its graph: it must say the same about the new example.
        example: the inputs it was traced with.
        tolerance: largest difference between graph and network that counts as the same.
    """
    leaves, structure = pytree.tree_flatten(example)
    repeated = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and _repeats(leaf)]
    if not repeated:
        return example
    judge = _Judge(model, program, structure, tolerance)
    tables = _tables(program)
    best, silent = leaves, judge.silent(leaves)
    for index in repeated * (2 if len(repeated) > 1 else 1):  # one input may hide another, a mask the tokens
        rows = tables.get(program.inputs[index], [])
        for draw in _others(leaves[index], rows):
            tried = [*best[:index], draw, *best[index + 1 :]]
            found = judge.silent(tried)
            if found is not None and (silent is None or found < silent):
                best, silent = tried, found
    made: Example = pytree.tree_unflatten(best, structure)
    return made


def _repeats(value: Tensor) -> bool:
    """True where neighbours along a dimension are equal: all tokens, two frames, two pictures of a batch."""
    if value.numel() < 2 or value.layout is not torch.strided:
        return False
    for dim in range(value.ndim):
        n = value.shape[dim]
        if n > 1:
            equal = value.narrow(dim, 1, n - 1) == value.narrow(dim, 0, n - 1)
            if bool(equal.movedim(dim, 0).reshape(n - 1, -1).all(1).any()):
                return True
    return False


def _others(value: Tensor, rows: Sequence[int]) -> Iterator[Tensor]:
    """Other values of the same kind, the most telling first."""
    generator = torch.Generator().manual_seed(0)
    shape = value.shape
    if value.is_floating_point():
        noise = torch.randn(shape, generator=generator).to(value)
        part = torch.rand(shape, generator=generator).to(value)
        yield noise if bool((value == value.flatten()[0]).all()) else value + noise * value[value.isfinite()].std()
        yield part
        yield torch.where(value.isfinite(), value * (part + 0.5), value)
        yield torch.where(part > 0.5, value.flatten()[0], 1 - value.flatten()[0]) if _all_bits(value) else noise
        return
    if value.dtype.is_complex:
        return
    for low, high in _ranges(value, rows):
        yield torch.randint(low, high, shape, generator=generator).to(value.dtype)


def _all_bits(value: Tensor) -> bool:
    return bool(((value == 0) | (value == 1)).all())


def _ranges(value: Tensor, rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges for random indices: the rows of the tables they reach, less what may be added or subtracted before."""
    if value.dtype == torch.bool:
        yield 0, 2
        return
    for n in sorted(set(rows), reverse=True):
        for low, high in ((0, n), (0, n - 1), (1, n), (n // 4, 3 * n // 4), (0, n // 2)):
            if low < high:
                yield low, high
    largest = int(value.max())
    if value.dtype == torch.uint8 and not rows:
        yield 0, 256
    for high in (100, 8, largest + 1, 2):
        if not rows or high < max(rows):
            yield from ((low, high) for low in (0, 1) if low < high - 1)


@final
class _Judge:
    """Says how much of a network an example leaves silent."""

    def __init__(self, model: nn.Module, program: Program, structure: Any, tolerance: float) -> None:
        self._model, self._program, self._structure, self._tolerance = model, program, structure, tolerance
        self._silent = 0
        self._moving: set[str] = set()

    def silent(self, leaves: Sequence[Any]) -> int | None:
        """Number of (value, dimension) pairs along which a value is constant; None where the network refuses."""
        example: Example = pytree.tree_unflatten(list(leaves), self._structure)
        self._silent, self._moving = 0, set()
        try:
            with torch.no_grad():
                found = tensors(run_model(self._model, pytree.tree_map(_copied, example)))
                graph = tensors(self._program.run(pytree.tree_map(_copied, example), self._place, self._call))
        except Exception:  # noqa: BLE001 - an input may mean something, a mask or a length
            return None
        same = [a.shape == b.shape and relative(a, b) <= self._tolerance for a, b in zip(found, graph, strict=True)]
        return self._silent if all(same) and all(bool(v.isfinite().all()) for v in found) else None

    def _place(self, node: fx.Node, given: Any) -> Any:
        if node.name in self._program.inputs:
            self._moving.add(node.name)
        tensors_ = self._program.tensors
        return tensor_of(self._model, tensors_[node.name][0]).clone() if node.name in tensors_ else given

    def _call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        made = node.target(*args, **kwargs)  # type: ignore[operator]
        if any(n.name in self._moving for n in node.all_input_nodes):
            self._moving.add(node.name)
            if isinstance(made, Tensor) and made.is_floating_point():
                self._silent += sum(_is_constant(made, dim) for dim in range(made.ndim))
        return made


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _is_constant(value: Tensor, dim: int) -> bool:
    if value.shape[dim] < 2 or not value.numel():
        return False
    spread = (value.amax(dim) - value.amin(dim)).nan_to_num(nan=0.0)  # of masked places, -inf everywhere
    return bool((spread <= 1e-5 * value.abs().amax(dim).nan_to_num(posinf=0.0)).all())


_READS = {"embedding": ("weight", 0), "embedding_bag": ("weight", 0), "index": ("self", 0), "take": ("self", 0)}
"""Operator that looks indices up -> the argument it looks in, and along which dimension where none is given."""


def _tables(program: Program) -> dict[str, list[int]]:
    """Input -> number of rows of every table that it, or whole numbers made from it, looks up."""
    sources: dict[fx.Node, set[str]] = {}
    found: dict[str, list[int]] = {}
    for node in program.nodes:
        if node.op == "placeholder" and node.name in program.inputs:
            sources[node] = {node.name}
        if node.op != "call_function":
            continue
        came = set[str]().union(*(sources.get(n, ()) for n in node.all_input_nodes))
        rows = _rows(node) if came else None
        for name in came if rows else ():
            found.setdefault(name, []).append(rows)  # type: ignore[arg-type]
        value = node.meta.get("val")
        if came and isinstance(value, Tensor) and not value.is_floating_point():
            sources[node] = came
    return found


def _rows(node: fx.Node) -> int | None:
    name = operator_name(node)
    if name == "one_hot":
        n = named_arguments(node, node.args, node.kwargs).get("num_classes", -1)
        return n if n > 0 else None
    if name in ("index_select", "gather"):
        table, dim = "self", named_arguments(node, node.args, node.kwargs)["dim"]
    elif name in _READS:
        table, dim = _READS[name]
    else:
        return None
    source = named_arguments(node, node.args, node.kwargs).get(table)
    shapes = source.meta.get("shapes") if isinstance(source, fx.Node) else None
    return int(shapes[0][dim]) if shapes and shapes[0] else None
