"""Centripetal SGD: Ding et al. CVPR 2019, arXiv 1904.03837."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import FloatArray, Widths
from autoprune.sparsity.base import SparsityTraining, Subject, check_nothing_frozen, check_number, parameters
from autoprune.sparsity.channels import GroupChannels, weights_of
from autoprune.sparsity.targets import target_widths

_NORMS = 0.1
"""Of the pull on vectors of norms, as in the authors' code."""


@final
class CentripetalSGD(SparsityTraining):
    """Filters of a cluster are trained to be one, so that cutting all but one of them loses nothing; section 3.2.

    k-means on what writes a group's channels makes as many clusters as uniform widths keep. The gradient of each filter
    is then the mean of its cluster's, and ε · (mean of the cluster - filter) draws it to the others (equation 4; weight
    decay is the optimizer's). At the end the weights that read a cluster are summed onto the first of its channels.
    Norms of a cluster are trained alike with a tenth of ε. A residual group has one clustering over all of its writers;
    the paper takes that of the first.

    Args:
        strength: ε; 3e-3 in the paper.
        iterations: of k-means, at most.
    """

    inherits: ClassVar[bool] = True

    def __init__(self, *, strength: float = 3e-3, iterations: int = 30) -> None:
        check_number("csgd", "strength", strength)
        check_number("csgd", "iterations", iterations, least=1, whole=True)
        self._strength, self._iterations = strength, iterations

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        check_nothing_frozen("csgd", subject)
        self.subject, channels = subject, subject.channels
        self._owner = clusters(channels, weights_of(subject.network), subject.target, subject.seed, self._iterations)
        self._writers = [(axis, 1.0) for axis in channels.written]
        self._writers += [(axis, _NORMS) for axis in (*channels.scales, *channels.shifts)]
        return subject.network

    def after_backward(self, model: nn.Module, *, done: float) -> None:
        """Gradients become those of equation 4."""
        weights = parameters(model)
        for axis, share in self._writers:
            weight = weights[axis.name]
            if weight.grad is not None:
                owner = _owners(self._owner, axis.numbers, self.subject.channels.number)
                rows = weight.grad.movedim(axis.dim, 0)
                values = weight.detach().movedim(axis.dim, 0)
                pulled = share * self._strength * (_cluster_means(values, owner) - values)
                weight.grad = (_cluster_means(rows, owner) - pulled).movedim(0, axis.dim).contiguous()

    def scores(self, model: nn.Module) -> Tensor:
        """The first channel of each cluster by its norm, above all others."""
        channels = self.subject.channels
        norms = channels.norms(parameters(model), channels.written).detach()
        first = self._owner == torch.arange(channels.number, device=self._owner.device)
        return norms / norms.max().clamp(min=1e-12) + first.to(norms.dtype)

    def widths(self, domain: BudgetedSpace, scores: Sequence[FloatArray]) -> Widths:
        """As many as there are clusters."""
        return target_widths(domain)

    @torch.no_grad()
    def settle(self, model: nn.Module) -> nn.Module:
        """Filters become the means of their clusters, and the first of each reads for all of them."""
        weights, channels = weights_of(model), self.subject.channels
        for axis, _ in self._writers:
            owner = _owners(self._owner, axis.numbers, channels.number)
            rows = weights[axis.name].movedim(axis.dim, 0)
            weights[axis.name].copy_(_cluster_means(rows, owner).movedim(0, axis.dim))
        for axis in channels.read:
            owner = _owners(self._owner, axis.numbers, channels.number)
            rows = weights[axis.name].movedim(axis.dim, 0)
            weights[axis.name].copy_(torch.zeros_like(rows).index_add_(0, owner, rows).movedim(0, axis.dim))
        return model

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`."""
        return {"owner": self._owner}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        self._owner = state["owner"].to(self._owner.device)


def clusters(
    channels: GroupChannels, weights: Mapping[str, Tensor], target: Widths, seed: int, iterations: int
) -> Tensor:
    """(number,) the first channel of the cluster that each channel is in; k-means on what writes them.

    Each layer counts with the same norm. As many clusters as the target keeps of each tied set.
    """
    from sklearn.cluster import KMeans

    owner = torch.arange(channels.number, device=channels.slots.device)
    kept = channels.kept(torch.zeros(channels.number), target)
    for part in channels.parts:
        width, count = part.stop - part.start, int(kept[part].sum())
        rows = []
        for axis in channels.written:
            inside = (axis.numbers >= part.start) & (axis.numbers < part.stop)
            if int(inside.sum()) % width == 0 and bool(inside.any()):
                order = axis.numbers[inside].argsort(stable=True)
                block = weights[axis.name].detach().movedim(axis.dim, 0)[inside][order].reshape(width, -1).double()
                rows.append(block / block.norm().clamp(min=1e-12))
        if count < width and rows:
            features = torch.cat(rows, dim=1).cpu().numpy()
            found = KMeans(count, n_init=1, max_iter=iterations, random_state=seed % 2**32).fit(features).labels_
            labels = torch.from_numpy(found).long()
            first = torch.tensor([int((labels == label).nonzero()[0]) for label in range(int(labels.max()) + 1)])
            owner[part] = part.start + first[labels].to(owner.device)
    return owner


def _owners(owner: Tensor, numbers: Tensor, outside: int) -> Tensor:
    """(n,) for each index of an axis the first index that belongs to its cluster; itself where it is in none.

    Where a channel has several indices, the k-th of one goes with the k-th of the other.
    """
    places = torch.arange(len(numbers), device=numbers.device)
    inside = numbers != outside
    order = numbers[inside].argsort(stable=True)
    indices = places[inside][order]
    ranked = numbers[inside][order]
    starts = torch.searchsorted(ranked, ranked)
    repeat = torch.arange(len(ranked), device=numbers.device) - starts
    of_owner = torch.searchsorted(ranked, owner[ranked]) + repeat
    found = places.clone()
    found[indices] = indices[of_owner]
    return found


def _cluster_means(rows: Tensor, owner: Tensor) -> Tensor:
    flat = rows.reshape(len(rows), -1)
    counts = torch.bincount(owner, minlength=len(rows)).clamp(min=1).to(flat.dtype)
    means = torch.zeros_like(flat).index_add_(0, owner, flat) / counts[:, None]
    return means[owner].reshape(rows.shape)
