"""Group lasso on channels: Ekbom; Li et al. 2019, OICSR, arXiv 1905.11664."""

from __future__ import annotations

from typing import Literal, final

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.importance.channel_axes import ChannelAxis
from autoprune.sparsity.base import SparsityTraining, Subject, check_number, parameters
from autoprune.sparsity.channels import GroupChannels, weights_of

Members = Literal["joint", "written", "read"]


@final
class GroupLasso(SparsityTraining):
    """loss + weight · Σ √p_i · ‖W_i‖₂ over channels, by a proximal step after each step of the optimizer.

    W_i are all weights of channel i, p_i how many: those that write and read it (OICSR's joint groups, section 3.1), or
    only one kind (a lasso on filters). The proximal step W_i ← W_i · max(0, 1 - lr · weight · √p_i / ‖W_i‖) is that of
    the group lasso (Yuan & Lin 2006); with `step: gradient` the subgradient is added instead, as penalties are. Where
    `raised` is above 1 the weight grows by this factor over the training, evenly in its logarithm (Ekbom raises it
    until the network is sparse). Importance is ‖W_i‖ as a share of the mean of its group before the training, as
    layers begin at scales of their own; a weight counts for the channel that it writes and for the one that it reads.

    Args:
        weight: λ.
        members: joint, written or read.
        step: proximal or gradient.
        raised: see above.
    """

    def __init__(
        self,
        *,
        weight: float = 1e-3,
        members: Members = "joint",
        step: Literal["proximal", "gradient"] = "proximal",
        raised: float = 1.0,
    ) -> None:
        check_number("group_lasso", "weight", weight)
        check_number("group_lasso", "raised", raised, least=1)
        if members not in ("joint", "written", "read"):
            raise ConfigError(
                f"sparsity training 'group_lasso': members must be joint, written or read, got {members!r}"
            )
        if step not in ("proximal", "gradient"):
            raise ConfigError(f"sparsity training 'group_lasso': step must be proximal or gradient, got {step!r}")
        self._weight, self._raised = weight, raised
        self._members: Members = members
        self._proximal = step == "proximal"

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        self.subject = subject
        self._axes = axes_of_members(subject.channels, self._members)
        entries = subject.channels.entries(weights_of(subject.network), self._axes)
        if not bool(entries.any()):
            raise ConfigError(
                f"sparsity training 'group_lasso': no weight is {self._members} here; choose other members, or sss"
            )
        self._roots = entries.clamp(min=1).sqrt()
        norms = subject.channels.norms(weights_of(subject.network), self._axes).detach()
        self._before = subject.channels.means(norms).clamp(min=1e-12)
        return subject.network

    def penalty(self, model: nn.Module, *, done: float) -> Tensor | None:
        """See `Term.penalty`."""
        if self._proximal:
            return None
        norms = self.subject.channels.norms(parameters(model), self._axes, least=1e-12)
        return self._now(done) * (self._roots * norms).sum()

    def after_step(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_step`."""
        if self._proximal:
            threshold = self.subject.lr(done) * self._now(done) * self._roots
            shrink(self.subject.channels, parameters(model), threshold, self._axes)

    def _now(self, done: float) -> float:
        return float(self._weight * self._raised**done)

    def scores(self, model: nn.Module) -> Tensor:
        """See `SparsityTraining.scores`."""
        return self.subject.channels.norms(parameters(model), self._axes).detach() / self._before


def axes_of_members(channels: GroupChannels, members: Members) -> list[ChannelAxis]:
    """Where the weights of these members lie."""
    return [*(channels.written if members != "read" else ()), *(channels.read if members != "written" else ())]


@torch.no_grad()
def shrink(channels: GroupChannels, weights: dict[str, Tensor], threshold: Tensor, axes: list[ChannelAxis]) -> None:
    """W_i ← W_i · max(0, 1 - t_i / ‖W_i‖) for each channel, in place; weights that do not train stay."""
    norms = channels.norms(weights, axes)
    axes = [axis for axis in axes if weights[axis.name].requires_grad]
    channels.scale_(weights, (1 - threshold / norms.clamp(min=1e-12)).clamp(min=0), axes)
