"""Products of the Hessian, or of its Gauss-Newton part, with vectors over the weights; traces by Hutchinson."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from autoprune.errors import ConfigError
from autoprune.importance.network import Examples, NetworkEvidence

Matrix: TypeAlias = Literal["hessian", "gauss_newton"]
"""Second derivatives of the loss; or JᵀHJ, J the outputs derived by the weights, H the loss twice by the outputs."""

Product: TypeAlias = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""A vector over the weights, by name -> the matrix times it."""

_TWICE = ("derivative for", "once_differentiable", "differentiate twice", "double backward", "does not support")


def products(
    network: NetworkEvidence, batch: Examples, matrix: Matrix = "hessian", *, temperature: float = 1.0
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

    def product(vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with twice_differentiated():
            given = [vector[name] for name in weights]
            return dict(zip(weights, _pulled(first, given, list(weights.values())), strict=True))

    return product


def gradient(network: NetworkEvidence, batch: Examples, *, temperature: float = 1.0) -> dict[str, Tensor]:
    """Of the mean loss over a batch by the weights; one forward and one backward pass."""
    weights = network.weights
    loss = network.loss_of(network.run(batch), batch, temperature=temperature)
    return dict(zip(weights, _pulled([loss], [torch.ones_like(loss)], list(weights.values())), strict=True))


def block_traces(
    network: NetworkEvidence,
    rng: np.random.Generator,
    *,
    probes: int,
    examples: int | None,
    matrix: Matrix,
    scaled: bool,
) -> Tensor:
    """(channels,) estimated trace of each channel's diagonal block; below 0 where it is indefinite, or by chance.

    Hutchinson: E[Σ_{k in block} v_k (Hv)_k] is the trace of the block for random signs v, drawn for all weights at
    once, so one product serves all channels.

    Args:
        network: the network.
        rng: what signs are drawn from.
        probes: vectors v for each batch.
        examples: how many examples to use at most.
        matrix: which matrix.
        scaled: that of DHD instead, with D the weights themselves: Σ h_kk w_k² of each channel.

    Raises:
        ConfigError: a setting out of range, or an operator that cannot be differentiated twice.
    """
    if probes < 1:
        raise ConfigError(f"probes must be at least 1, got {probes}")
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    weights = {name: weight.detach() for name, weight in network.weights.items()}
    batches = network.examples(examples)
    total = torch.zeros(network.channels, dtype=torch.float64, device=network.slots.device)
    for batch in batches:
        product = products(network, batch, matrix)
        for _ in range(probes):
            signs = {name: _signs(weight, generator) for name, weight in weights.items()}
            vector = {name: v * weights[name] for name, v in signs.items()} if scaled else signs
            turned = product(vector)
            total += network.sums({name: vector[name] * turned[name] for name in weights}) * batch.number
    return total / (probes * sum(batch.number for batch in batches))


@contextmanager
def twice_differentiated() -> Iterator[None]:
    """Attention is computed by operators that have second derivatives; others that have none are named in the error."""
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            yield
    except (RuntimeError, NotImplementedError) as error:
        if not any(words in str(error) for words in _TWICE):
            raise
        raise ConfigError(
            f"second derivatives of the loss are needed, and an operator of this network has none: "
            f"{str(error).splitlines()[0]}; choose a criterion of first derivatives (fisher, taylor_gate), or write "
            f"that operator with functions of torch"
        ) from error


def _gauss_newton(network: NetworkEvidence, batch: Examples, outputs: Any, weights: Mapping[str, Tensor]) -> Product:
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
    pulled = torch.autograd.grad(made, parameters, dual, create_graph=True, allow_unused=True)

    def product(vector: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with twice_differentiated():
            pushed = _pulled(pulled, [vector[name] for name in weights], dual)
            bent = _pulled(by_output, pushed, apart)
            return dict(zip(weights, _pulled(made, bent, parameters), strict=True))

    return product


def _pulled(outputs: Sequence[Tensor | None], vectors: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Sum of vector times derivative by each input; zeros where nothing depends on it."""
    pairs = [(o, v) for o, v in zip(outputs, vectors, strict=True) if o is not None and o.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(inputs)
    if pairs:
        found = torch.autograd.grad(
            [o for o, _ in pairs], inputs, [v.to(o.dtype) for o, v in pairs], retain_graph=True, allow_unused=True
        )
    return [torch.zeros_like(i) if f is None else f.detach() for i, f in zip(inputs, found, strict=True)]


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(0, 2, like.shape, generator=generator).to(like.device)
    return (2 * drawn - 1).to(like.dtype)
