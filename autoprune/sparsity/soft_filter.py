"""Soft filter pruning: He et al. IJCAI 2018, arXiv 1808.06866; by the geometric median: He et al. CVPR 2019."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, Widths
from autoprune.sparsity.admm import written
from autoprune.sparsity.base import SparsityTraining, Subject, check_nothing_frozen, parameters
from autoprune.sparsity.channels import GroupChannels
from autoprune.sparsity.targets import target_widths


@final
class SoftFilterPruning(SparsityTraining):
    """After each epoch the least filters are set to 0 and train on, so that one that is missed comes back; SFP.

    As many of each group go as uniform widths leave out (the papers have one rate for all layers, too). Which ones is
    decided anew each time. A channel that several layers write is set to 0 in all of them; norms are left to the
    weights' training.

    Departure: before a batch norm gradients grow with 1 / norm of a filter, so that one set to 0 comes back far larger
    than the others, and is kept for it. Gradients of such filters are no longer than the mean of those kept.

    Args:
        by: "l2" the norm of the filter (SFP); "fpgm" the sum of its distances to the other filters of its group.
    """

    inherits: ClassVar[bool] = True

    def __init__(self, *, by: Literal["l2", "fpgm"] = "l2") -> None:
        if by not in ("l2", "fpgm"):
            raise ConfigError(f"sparsity training 'soft_filter': by must be l2 or fpgm, got {by!r}")
        self._by = by

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        check_nothing_frozen("soft_filter", subject)
        self.subject, self._epochs = subject, 0
        self._kept = torch.ones(subject.channels.number, dtype=torch.bool, device=subject.channels.slots.device)
        if not subject.channels.written:
            raise ConfigError("sparsity training 'soft_filter': no weight of this network writes a group; choose sss")
        return subject.network

    @torch.no_grad()
    def after_backward(self, model: nn.Module, *, done: float) -> None:
        """Gradients of filters that were set to 0 become no longer than the mean of the others of their layer."""
        kept = torch.cat([self._kept, self._kept.new_ones(1)])  # the last: indices of no channel
        weights = parameters(model)
        for axis in self.subject.channels.written:
            gradient, here = weights[axis.name].grad, kept[axis.numbers]
            if gradient is not None and not bool(here.all()) and bool(here.any()):
                rows = gradient.movedim(axis.dim, 0).flatten(1) if gradient.ndim > 1 else gradient[:, None]
                norms = rows.norm(dim=1)
                short = (norms[here].mean() / norms.clamp(min=1e-30)).clamp(max=1.0)
                factor = torch.where(here, torch.ones_like(short), short)
                shape = [-1 if dim == axis.dim else 1 for dim in range(gradient.ndim)]
                gradient.mul_(factor.reshape(shape))

    def after_step(self, model: nn.Module, *, done: float) -> None:
        """Set filters to 0 where an epoch has ended; the middle of its last step is known by its successor's."""
        epoch = int(done * self.subject.recipe.epochs)
        if epoch > self._epochs:
            self._epochs = epoch
            self._zero(model)

    def _zero(self, model: nn.Module) -> None:
        channels, weights = self.subject.channels, parameters(model)
        self._kept = channels.kept(filter_scores(channels, weights, self._by), self.subject.target)
        channels.scale_(weights, self._kept.float(), channels.written)

    def scores(self, model: nn.Module) -> Tensor:
        """The criterion at the end."""
        return filter_scores(self.subject.channels, parameters(model), self._by)

    def widths(self, domain: BudgetedSpace, scores: Sequence[FloatArray]) -> Widths:
        """Uniform ones."""
        return target_widths(domain)

    def settle(self, model: nn.Module) -> nn.Module:
        """The last filters are set to 0."""
        with torch.no_grad():
            self._zero(model)
        return model

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`."""
        return {"epochs": self._epochs, "kept": self._kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        self._epochs = state["epochs"]
        self._kept = state["kept"].to(self._kept.device)


@torch.no_grad()
def filter_scores(channels: GroupChannels, weights: Mapping[str, Tensor], by: str) -> Tensor:
    """(number,) norms of what writes each channel, or sums of distances to the others (FPGM, equation 4)."""
    if by == "l2":
        return channels.norms(weights, channels.written)
    scores = torch.zeros(channels.number, device=channels.slots.device)
    for weight_axis in channels.written:
        weight = (
            written(channels, weights)[weight_axis.name]
            .movedim(weight_axis.dim, 0)
            .reshape(len(weight_axis.numbers), -1)
        )
        for part in channels.parts:
            inside = ((weight_axis.numbers >= part.start) & (weight_axis.numbers < part.stop)).nonzero().flatten()
            if len(inside):
                rows = weight[inside]
                scores.index_add_(0, weight_axis.numbers[inside], torch.cdist(rows, rows).sum(dim=1))
    return scores
