"""Network Slimming: Liu et al. 2017, arXiv 1708.06519, section 3."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from autoprune.sparsity.base import SparsityTraining, Subject, check_number, parameters, scale_magnitudes
from autoprune.training.terms.bn_l1 import BatchNormL1


@final
class NetworkSlimming(SparsityTraining):
    """L1 on the scales of batch norms by its subgradient (equation 1), then one quantile of |gamma| for all layers.

    A channel that several norms scale (a residual sum) counts with the sum of theirs; the paper makes such networks
    ready with a layer that selects channels. The quantile is the one that meets the budget.

    Args:
        weight: lambda; the paper has 1e-4 for VGG, 1e-5 for ResNet and DenseNet.
    """

    def __init__(self, *, weight: float = 1e-4) -> None:
        check_number("network_slimming", "weight", weight)
        self._penalty = BatchNormL1(weight=weight)

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        scale_magnitudes(subject.channels, parameters(subject.network), "network_slimming")
        return super().set_up(subject)

    def after_backward(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_backward`."""
        self._penalty.after_backward(model, done=done)

    def scores(self, model: nn.Module) -> Tensor:
        """See `SparsityTraining.scores`."""
        return scale_magnitudes(self.subject.channels, parameters(model), "network_slimming")
