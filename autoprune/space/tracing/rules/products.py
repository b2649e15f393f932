"""Matrix products: one rule for all, by the letters of an einsum.

Every dimension of an operand has a letter. Dimensions with the same letter are tied; letters of weights and of channels
pass to the output. In a batched product (attention) channels lie along a batch letter (the head) and another one (the
dimension inside the head) at once; a width can be only one of them, by default whole heads.

Longer than others, as each product is a few lines around the one rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import ascii_letters
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from autoprune.space.sizes import OperationKind
from autoprune.space.tracing.calls import Call, Channels, LabelGraph, Parameter, WeightLabels
from autoprune.space.tracing.labels import FIXED, VOID, spread
from autoprune.space.tracing.resize import Arguments, Sized
from autoprune.space.tracing.rules.base import tie_parameter, tie_within, unite_broadcast, unknown, varying


@final
@dataclass(frozen=True, eq=False)
class _Operand:
    """One side of a product: its letters, and the channels along each of them (missing: nothing is said)."""

    letters: str
    channels: dict[str, Channels]
    owners: frozenset[str]  # letters along which channels lie
    parameter: Parameter | WeightLabels | None


def linear(graph: LabelGraph, call: Call) -> Any:
    """`x @ weight.T + bias`, channels in the last dimension."""
    if not graph.is_weight(call["weight"]):
        return unknown(graph, call, "a linear layer whose weight is computed in forward")
    batch = ascii_letters[: len(call["input"].shape) - 1]
    made = multiply(graph, call, [call["input"], call["weight"]], [batch + "x", "yx"], batch + "y", kind="linear")
    if call.get("bias") is not None:
        tie_parameter(graph, call["bias"], graph.axes_of(call["weight"])[0], call)
    return made


def matmul(graph: LabelGraph, call: Call) -> Any:
    """`matmul`, `mm`, `bmm`: batch dimensions broadcast."""
    left, right = call.tensors[-2:]
    return _matmul(graph, call, left, right, call.shape)


def plus_product(graph: LabelGraph, call: Call) -> Any:
    """`addmm`, `baddbmm`: a product and something added to it."""
    bias, left, right = call.tensors
    made = _matmul(graph, call, left, right, call.shape, kind="matmul" if call.name == "addmm" else "unseen")
    if isinstance(made, WeightLabels) or isinstance(bias, WeightLabels):
        return unknown(graph, replace(call, arguments={"made": made, "bias": bias}), "a sum with products of channels")
    speaking = unite_broadcast(graph, call, [made, graph.labels(bias)], call.shape)
    for operand in speaking[1:]:
        graph.unions.unite(speaking[0], operand, f"{call.place} combines them with a tensor whose size is fixed")
    return made


def einsum(graph: LabelGraph, call: Call) -> Any:
    """Any einsum without repeated letters or ellipses inside one operand."""
    inputs, _, output = str(call["equation"]).replace(" ", "").partition("->")
    letters = inputs.split(",")
    if "..." in inputs or any(len(set(term)) != len(term) for term in letters) or not output:
        return unknown(graph, call, "an einsum with ellipses or repeated letters")
    return multiply(graph, call, call.tensors, letters, output, kind="unseen")  # fvcore rounds what it counts


def bilinear(graph: LabelGraph, call: Call) -> Any:
    """Products of all pairs of two inputs' channels, each weighted."""
    if not graph.is_weight(call["weight"]):
        return unknown(graph, call, "a bilinear layer whose weight is computed in forward")
    batch = ascii_letters[: len(call.shape) - 1]
    terms = [batch + "x", "zxy", batch + "y"]
    operands = [call["input1"], call["weight"], call["input2"]]
    made = multiply(graph, call, operands, terms, batch + "z", kind="uncounted")
    if call.get("bias") is not None:
        tie_parameter(graph, call["bias"], graph.axes_of(call["weight"])[0], call)
    return made


def attention(graph: LabelGraph, call: Call) -> Any:
    """Fused attention: scores of queries and keys, then a mean of values."""
    query, key, value = (graph.labels(call[name]) for name in ("query", "key", "value"))
    if call.get("enable_gqa"):
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    batch = np.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    shape = (*batch, query.shape[-2], key.shape[-2])
    if call.get("scale") is None and query.ndim - 1 in graph.unions.splits(query):
        graph.graph_only |= graph.attention == "head_dim" or len(varying(query)) == 1  # forward would scale anew
    scores = _matmul(graph, call, query, key.transpose(-1, -2), shape, kind="unseen")
    mask = call.get("attn_mask")
    if mask is not None and isinstance(scores, WeightLabels):
        return unknown(graph, replace(call, arguments={"scores": scores, "value": value}), "a mask over channels")
    if mask is not None:
        speaking = unite_broadcast(graph, call, [scores, graph.labels(mask)], shape)
        for operand in speaking[1:]:
            graph.unions.unite(speaking[0], operand, f"{call.place} adds a mask of fixed size")
    return _matmul(graph, call, scores, value, call.shape, kind="unseen")


def _matmul(
    graph: LabelGraph, call: Call, left: Any, right: Any, shape: Sequence[int], kind: OperationKind = "matmul"
) -> Any:
    if len(left.shape) < 2 or len(right.shape) < 2:
        return _by_vector(graph, call, left, right)
    n_batch = len(shape) - 2
    batch = ascii_letters[:n_batch]
    left_letters = batch[n_batch - (len(left.shape) - 2) :] + "xy"
    right_letters = batch[n_batch - (len(right.shape) - 2) :] + "yz"
    return multiply(graph, call, [left, right], [left_letters, right_letters], batch + "xz", shape=shape, kind=kind)


def _by_vector(graph: LabelGraph, call: Call, left: Any, right: Any) -> Any:
    """A product with a vector on one side or both, which neither fvcore nor torch counts."""
    if len(right.shape) == 1:
        batch = ascii_letters[: len(left.shape) - 1]
        return multiply(graph, call, [left, right], [batch + "x", "x"], batch, kind="uncounted")
    batch = ascii_letters[: len(right.shape) - 2]
    return multiply(graph, call, [left, right], ["x", batch + "xy"], batch + "y", kind="uncounted")


def multiply(
    graph: LabelGraph,
    call: Call,
    operands: Sequence[Any],
    letters: Sequence[str],
    output: str,
    *,
    shape: Sequence[int] | None = None,
    kind: OperationKind = "matmul",
) -> Any:
    """The rule behind all products.

    Args:
        graph: the book.
        call: the operator call, for its name and place.
        operands: labels or parameters.
        letters: one letter per dimension of each operand; a dimension of size 1 that broadcasts says nothing.
        output: letters of the result.
        shape: of the result; that of the call by default.
        kind: how its multiply-adds are told from those that fvcore counts.
    """
    shape = call.shape if shape is None else shape
    sizes = {
        letter: max(int(o.shape[t.index(letter)]) for o, t in zip(operands, letters, strict=True) if letter in t)
        for letter in dict.fromkeys("".join(letters))
    }
    shared = [letter for letter in output if all(letter in term for term in letters)]
    sides = _sides(graph, call, list(zip(operands, letters, strict=True)), sizes, (shared, output))
    names = [side.parameter.name for side in sides if isinstance(side.parameter, Parameter)]
    layer = next((name.rpartition(".")[0] or name for name in names), call.layer).partition(".parametrizations.")[0]
    channels: dict[str, Channels] = {}
    owners = [letter for letter in sizes if any(letter in side.owners for side in sides)]
    for side in sides:
        for letter, vector in side.channels.items():
            known = channels.get(letter)
            reason = f"{layer or call.place} reads them beside inputs of fixed size"
            channels[letter] = vector if known is None else graph.unions.unite(known, vector, reason)
            if side.parameter and letter not in output:
                graph.reads(side.parameter, side.letters.index(letter))
    coefficient = math.prod(size for letter, size in sizes.items() if letter not in owners)
    graph.operation(layer, kind, coefficient, [channels[letter] for letter in owners])
    return _result(graph, call, sides, channels, owners, output, shape, layer)


def _sides(
    graph: LabelGraph, call: Call, given: Sequence[tuple[Any, str]], sizes: dict[str, int], out: tuple[list[str], str]
) -> list[_Operand]:
    """What the operands say about their letters; computed weights last, as what they meet tells their axes apart."""
    met: dict[str, Channels] = {}
    sides: dict[int, _Operand] = {}
    for number in sorted(range(len(given)), key=lambda i: isinstance(given[i][0], WeightLabels)):
        sides[number] = _side(graph, call, *given[number], sizes, out, met)
        met |= sides[number].channels
    return [sides[number] for number in range(len(given))]


def _side(
    graph: LabelGraph,
    call: Call,
    value: Any,
    term: str,
    sizes: dict[str, int],
    out: tuple[list[str], str],
    met: dict[str, Channels],
) -> _Operand:
    """What one operand says; `out` is the letters that all sides share, and those of the result."""
    if isinstance(value, Parameter | WeightLabels):
        beside = {dim: met[letter] for dim, letter in enumerate(term) if letter in met}
        axes = zip(term, graph.axes_of(value, beside), value.shape, strict=True)
        vectors = {letter: axis for letter, axis, n in axes if n > 1 or sizes[letter] == 1}  # one of it broadcasts
        if isinstance(value, WeightLabels) and value.of_activations:
            return _Operand(term, vectors, frozenset(t for t, v in vectors.items() if int(v.max()) > FIXED), None)
        return _Operand(term, vectors, frozenset(vectors), value)
    labels: Tensor = value
    if bool((labels == VOID).all()):
        return _Operand(term, {}, frozenset(), None)
    dims = varying(labels)
    if graph.unions.is_spread(labels):
        return _copies(graph, call, labels, term, sizes)
    if len(dims) > 1:
        keep = _kept_dim(graph, labels, term, *out)
        labels = tie_within(graph, labels, [keep], f"{call.place} multiplies them together")
        if term[keep] in out[0]:
            graph.heads.append(labels)
        dims = [keep]
    vectors = {}
    for dim, letter in enumerate(term):
        if labels.shape[dim] == 1 and sizes[letter] > 1:
            continue  # broadcast: says nothing
        if dim in dims:
            vectors[letter] = graph.unions.per_channel(labels, dim, f"{call.place} reads positions as one channel")
        else:
            vectors[letter] = torch.tensor(FIXED).expand(sizes[letter])
    if not dims:
        graph.unions.freeze(labels, f"{call.place} has a single channel")
    return _Operand(term, vectors, frozenset(term[d] for d in dims), None)


def _copies(graph: LabelGraph, call: Call, labels: Tensor, term: str, sizes: dict[str, int]) -> _Operand:
    """Copies of one value: along one dimension they are as many as the other side has channels there."""
    dims = varying(labels)
    if len(dims) > 1:
        graph.unions.freeze(labels, f"{call.place} multiplies them together")
    vectors = {}
    for dim, letter in enumerate(term):
        if labels.shape[dim] == sizes[letter]:
            vectors[letter] = torch.tensor(FIXED).expand(sizes[letter])
            if dims == [dim]:
                vectors[letter] = graph.unions.per_channel(labels, dim, f"{call.place} reads positions as one channel")
    return _Operand(term, vectors, frozenset(), None)


def _kept_dim(graph: LabelGraph, labels: Tensor, term: str, shared: Sequence[str], output: str) -> int:
    """The one dimension along which channels stay apart: heads, or with `attention: head_dim` what lies inside them."""
    dims = graph.unions.splits(labels)
    if len(dims) == 1:
        return dims[0]
    if not dims:  # values of several producers beside each other, or a table: what is multiplied away are channels
        dims = varying(labels)
        return next((d for d in reversed(dims) if term[d] not in output), dims[-1])
    heads = [d for d in dims if term[d] in shared] or [d for d in dims if term[d] in output]
    inside = [d for d in dims if d not in heads]
    if not heads or not inside:
        return dims[-1]
    return heads[-1] if graph.attention == "heads" else inside[-1]


def _result(
    graph: LabelGraph,
    call: Call,
    sides: Sequence[_Operand],
    channels: dict[str, Channels],
    owners: Sequence[str],
    output: str,
    shape: Sequence[int],
    layer: str,
) -> Any:
    """Labels of the product: the channels of one of its letters, of two where both are those of activations."""
    stuck = {letter for side in sides for letter, vector in side.channels.items() if not bool((vector > 0).any())}
    passed = [letter for letter in output if letter in owners and letter not in stuck]
    activations = frozenset().union(*(side.owners for side in sides if side.parameter is None))
    if graph.attention == "head_dim":
        passed.reverse()
    passed.sort(key=lambda letter: letter not in activations)  # channels of activations before those of weights
    if len(passed) == 2 and activations.issuperset(passed):
        return pairs_of_channels([channels[p] for p in passed], [output.index(p) for p in passed], shape)
    for letter in passed[1:]:
        graph.unions.freeze(channels[letter], f"{call.place}: its result has channels along two dimensions")
    produced = [side for side in sides if side.parameter and passed and passed[0] in side.letters]
    if not passed:
        return torch.tensor(FIXED).expand(tuple(shape))
    vector = channels[passed[0]]
    if len(passed) > 1 and passed[0] not in activations and graph.attention == "heads":
        graph.heads.append(vector)
    if produced and passed[0] not in activations:
        positions = math.prod(n for n, letter in zip(shape, output, strict=True) if letter != passed[0])
        graph.write(layer, vector, producer=True, positions=positions)
    return spread(vector, output.index(passed[0]), tuple(shape))


def pairs_of_channels(vectors: Sequence[Channels], dims: Sequence[int], shape: Sequence[int]) -> WeightLabels:
    """Labels of products or distances of channels with channels: an element stays where both of its channels do."""
    factors = tuple(spread(vector, dim, tuple(shape)) for vector, dim in zip(vectors, dims, strict=True))
    return WeightLabels(factors, of_activations=True)


def resize_attention(call: Sized) -> Arguments:
    """The scale of whole heads, also where channels inside them are cut."""
    if call.arguments.get("scale") is not None:
        return call.arguments
    return call.arguments | {"scale": 1 / math.sqrt(call.traced_shape("query")[-1])}
