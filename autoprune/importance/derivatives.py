"""Gradients by the weights, and products of the Hessian or the Gauss-Newton matrix with vectors over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from autoprune.errors import ConfigError
from autoprune.importance.examples import ExampleBatch
from autoprune.importance.network import NetworkEvidence

Matrix: TypeAlias = Literal["hessian", "gauss_newton"]
"""Second derivatives of the loss; or JᵀHJ, J the outputs derived by the weights, H the loss twice by the outputs."""

Product: TypeAlias = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""A vector over the weights, by name -> the matrix times it."""

_TWICE = ("derivative for", "once_differentiable", "differentiate twice", "double backward", "does not support")


def products(
    network: NetworkEvidence, batch: ExampleBatch, matrix: Matrix = "hessian", *, temperature: float = 1.0
) -> Product:
    """Prepare products with the matrix of the mean loss over a batch; one forward and one backward pass.

    Each product is one backward pass more (three for `gauss_newton`).

    Args:
        network: the network.
        batch: the batch.
        matrix: which matrix.
        temperature: see `NetworkEvidence.loss_of`; of the Hessian only.

    Raises:
        ConfigError: an operator of the network cannot be differentiated twice.
    """
    weights = network.weights
    with twice_differentiated():
        outputs = network.run(batch)
        if matrix == "gauss_newton":
            return _gauss_newton(network, batch, outputs, weights)
        loss = network.loss_of(outputs, batch, temperature=temperature)
        first = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
        check_twice(first)

    def product(vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with twice_differentiated():
            given = [vector[name] for name in weights]
            return dict(zip(weights, pulled(first, given, list(weights.values())), strict=True))

    return product


def gradient(network: NetworkEvidence, batch: ExampleBatch, *, temperature: float = 1.0) -> dict[str, Tensor]:
    """Of the mean loss over a batch by the weights; one forward and one backward pass."""
    weights = network.weights
    loss = network.loss_of(network.run(batch), batch, temperature=temperature)
    return dict(zip(weights, pulled([loss], [torch.ones_like(loss)], list(weights.values())), strict=True))


@contextmanager
def twice_differentiated() -> Iterator[None]:
    """Attention is computed by operators that have second derivatives; others that have none are named in the error."""
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            yield
    except (RuntimeError, NotImplementedError) as error:
        if not any(words in str(error) for words in _TWICE):
            raise
        raise _once(str(error).splitlines()[0]) from error


def check_twice(slopes: Sequence[Tensor | None]) -> None:
    """Check that no derivative comes from a function that can be differentiated only once: its own would be cut off.

    Raises:
        ConfigError: one does.
    """
    nodes = [slope.grad_fn for slope in slopes if slope is not None and slope.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if node.name() == "torch::autograd::Error":
            raise _once("a function is marked with once_differentiable")
        after = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= after
        nodes += after


def _once(why: str) -> ConfigError:
    return ConfigError(
        f"second derivatives of the loss are needed, and an operator of this network has none: {why}; choose a "
        f"criterion of first derivatives (fisher, taylor_gate), or write that operator with functions of torch"
    )


def _gauss_newton(
    network: NetworkEvidence, batch: ExampleBatch, outputs: Any, weights: Mapping[str, Tensor]
) -> Product:
    leaves, spec = pytree.tree_flatten(outputs)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
    made = [leaves[i] for i in places]
    apart = [leaf.detach().requires_grad_(True) for leaf in made]
    for place, leaf in zip(places, apart, strict=True):
        leaves[place] = leaf
    loss = network.loss_of(pytree.tree_unflatten(leaves, spec), batch)
    by_output = torch.autograd.grad(loss, apart, create_graph=True, allow_unused=True)
    dual = [torch.zeros_like(leaf, requires_grad=True) for leaf in made]
    parameters = list(weights.values())
    # Jᵀu is linear in u: its derivative by u, times v, is Jv
    back = torch.autograd.grad(made, parameters, dual, create_graph=True, allow_unused=True)
    check_twice(back)

    def product(vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with twice_differentiated():
            pushed = pulled(back, [vector[name] for name in weights], dual)
            bent = pulled(by_output, pushed, apart)
            return dict(zip(weights, pulled(made, bent, parameters), strict=True))

    return product


def pulled(outputs: Sequence[Tensor | None], vectors: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Sum of vector times derivative by each input; zeros where nothing depends on it."""
    pairs = [(o, v) for o, v in zip(outputs, vectors, strict=True) if o is not None and o.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(inputs)
    if pairs:
        found = torch.autograd.grad(
            [o for o, _ in pairs], inputs, [v.to(o.dtype) for o, v in pairs], retain_graph=True, allow_unused=True
        )
    return [torch.zeros_like(i) if f is None else f.detach() for i, f in zip(inputs, found, strict=True)]
