"""The L1 norm of the scales of batch norms."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.errors import ConfigError
from autoprune.training.terms.base import Term


@final
class BatchNormL1(Term):
    """Adds weight · sum |gamma| over all scales of batch norms, by its subgradient weight · sign(gamma), 0 at 0.

    As in the authors' code the gradients are changed after backward, so the loss that is reported is without it.
    Scales that do not train stay.

    Args:
        weight: lambda; the paper has 1e-4 for VGG, 1e-5 for ResNet and DenseNet.

    Raises:
        ConfigError: a weight that is no finite number above 0.
    """

    def __init__(self, *, weight: float = 1e-4) -> None:
        if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight < math.inf:
            raise ConfigError(f"term 'bn_l1': weight must be a finite number above 0, got {weight!r}")
        self._weight = weight

    def begin(self, model: nn.Module) -> None:
        """See `Term.begin`."""
        if not _scales(model):
            raise ConfigError(
                "term 'bn_l1': the network has no batch norm modules with scales that train; leave the term out"
            )

    @torch.no_grad()
    def after_backward(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_backward`."""
        for scale in _scales(model):
            if scale.grad is not None:
                scale.grad.add_(scale.sign(), alpha=self._weight)


def _scales(model: nn.Module) -> list[nn.Parameter]:
    """Each scale once, also one that several norms share."""
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm) and module.affine)
    return list({id(norm.weight): norm.weight for norm in norms if norm.weight.requires_grad}.values())
