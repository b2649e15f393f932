"""Traces of each channel's diagonal block in the matrix of second derivatives, estimated with random signs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from autoprune.errors import ConfigError
from autoprune.importance.checks import check_choice
from autoprune.importance.derivatives import Matrix, check_twice, products, pulled, twice_differentiated
from autoprune.importance.examples import ExampleBatch
from autoprune.importance.network import NetworkEvidence

MOST_OUTPUTS = 256
"""How many outputs an example may have for the root of the loss's second derivatives by them."""


def block_traces(
    network: NetworkEvidence,
    rng: np.random.Generator,
    *,
    probes: int,
    examples: int | None,
    matrix: Matrix,
    scaled: bool,
) -> Tensor:
    """(channels,) estimated trace of each channel's block of the mean loss's matrix; below 0 only for `hessian`.

    `hessian`: Hutchinson, E[Σ_{k in block} v_k (Hv)_k] for random signs v over all weights at once, so that one product
    serves all channels. Its error also holds all that lies beside the blocks: it may be far larger than the trace.

    `gauss_newton`: Σ_{k in block} E[(JᵀLu)_k²] for random signs u over the outputs, with LLᵀ the second derivatives of
    the loss by the outputs: never negative, and with a relative error of at most √(2 / probes). In networks of
    piecewise linear functions (ReLU) the Hessian's diagonal is that of the Gauss-Newton matrix. Above 256 outputs for
    each example it is estimated as for `hessian`.

    Args:
        network: the network.
        rng: what signs are drawn from.
        probes: vectors of signs for each batch.
        examples: how many examples to use at most.
        matrix: which matrix.
        scaled: that of DHD instead, with D the weights themselves: Σ h_kk w_k² of each channel.

    Raises:
        ConfigError: a setting out of range, or an operator that cannot be differentiated twice.
    """
    check_choice("matrix", matrix, Matrix)
    if probes < 1:
        raise ConfigError(f"probes must be at least 1, got {probes}")
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    batches, estimate = network.examples(examples), _Estimate(network, probes, generator, scaled)
    total = torch.zeros(network.channels, dtype=torch.float64, device=network.slots.device)
    for batch in batches:
        outputs = _Outputs(network, batch) if matrix == "gauss_newton" else None
        small = outputs is not None and 0 < outputs.size <= MOST_OUTPUTS
        for found in estimate.squares(outputs) if outputs and small else estimate.hutchinson(batch, matrix):
            total += found * batch.number
    return total / (probes * sum(batch.number for batch in batches))


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Estimate:
    network: NetworkEvidence
    probes: int
    generator: torch.Generator
    scaled: bool

    def hutchinson(self, batch: ExampleBatch, matrix: Matrix) -> Iterator[Tensor]:
        """(channels,) sums of v times matrix times v, of each probe."""
        product = products(self.network, batch, matrix)
        weights = {name: weight.detach() for name, weight in self.network.weights.items()}
        for _ in range(self.probes):
            vector = {name: self._signs(weight) for name, weight in weights.items()}
            if self.scaled:
                vector = {name: v * weights[name] for name, v in vector.items()}
            turned = product(vector)
            yield self.network.sums({name: vector[name] * turned[name] for name in weights})

    def squares(self, outputs: _Outputs) -> Iterator[Tensor]:
        """(channels,) sums of (JᵀLu)², of each probe."""
        weights, root = self.network.weights, outputs.root()
        for _ in range(self.probes):
            drawn = torch.einsum("nij,nj->ni", root, self._signs(root[:, 0]))
            slopes = pulled(outputs.made, outputs.parts(drawn), list(weights.values()))
            found = dict(zip(weights, slopes, strict=True))
            if self.scaled:
                found = {name: slope * weights[name].detach() for name, slope in found.items()}
            yield self.network.sums({name: slope.double().square() for name, slope in found.items()})

    def _signs(self, like: Tensor) -> Tensor:
        drawn = torch.randint(0, 2, like.shape, generator=self.generator).to(like.device)
        return (2 * drawn - 1).to(like.dtype)


@final
class _Outputs:
    """What the network gives for a batch, a row for each example.

    Attributes:
        made: its tensors that depend on the weights.
        size: numbers in them for each example; infinity where one of them has no row for each example.
    """

    def __init__(self, network: NetworkEvidence, batch: ExampleBatch) -> None:
        self._network, self._batch = network, batch
        self._leaves, self._spec = pytree.tree_flatten(network.run(batch))
        self._places = [i for i, leaf in enumerate(self._leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
        self.made: list[Tensor] = [self._leaves[i] for i in self._places]
        rows = all(leaf.ndim and len(leaf) == batch.number for leaf in self.made)
        self.size = sum(leaf[0].numel() for leaf in self.made) if rows else math.inf

    def parts(self, flat: Tensor) -> list[Tensor]:
        """(examples, size) numbers in the shapes of the outputs."""
        found, start = [], 0
        for leaf in self.made:
            number = leaf[0].numel()
            found.append(flat[:, start : start + number].reshape(leaf.shape))
            start += number
        return found

    def root(self) -> Tensor:
        """(examples, size, size) root of the second derivatives of the loss by each example's outputs."""
        apart = [leaf.detach().requires_grad_(True) for leaf in self.made]
        with twice_differentiated():
            first = torch.autograd.grad(self._loss(apart), apart, create_graph=True, allow_unused=True)
            check_twice(first)
            columns = []
            for output in range(int(self.size)):
                directions = torch.zeros(self._batch.number, int(self.size), device=apart[0].device)
                directions[:, output] = 1.0  # the loss is a mean: outputs of two examples do not meet in it
                found = pulled(first, self.parts(directions), apart)
                columns.append(torch.cat([t.reshape(len(t), -1).double() for t in found], dim=1))
        second = torch.stack(columns, dim=2)
        values, vectors = torch.linalg.eigh((second + second.mT) / 2)
        return torch.mul(vectors, values.clamp(min=0).sqrt()[:, None])

    def _loss(self, apart: Sequence[Tensor]) -> Tensor:
        leaves: list[Any] = list(self._leaves)
        for place, leaf in zip(self._places, apart, strict=True):
            leaves[place] = leaf
        return self._network.loss_of(pytree.tree_unflatten(leaves, self._spec), self._batch)
