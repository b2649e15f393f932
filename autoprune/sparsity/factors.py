"""Accelerated proximal steps of the factors of plain gates, in the place of the optimizer's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor

from autoprune.sparsity.proximal import accelerated_step


@final
class FactorSteps:
    """What goes along with some factors from step to step.

    Args:
        values: the factors.
        weight: of their L1 norm.
        momentum: μ.
        lr: share of the training that is over -> learning rate.

    Attributes:
        z: the factors with exact zeros, as the last proximal step gave them.
    """

    def __init__(self, values: Tensor, *, weight: float, momentum: float, lr: Callable[[float], float]) -> None:
        self._weight, self._mu, self._lr = weight, momentum, lr
        self.z = values.detach().clone()
        self._momentum = torch.zeros_like(self.z)
        self._gradient: Tensor | None = None

    def take(self, values: Tensor) -> None:
        """Take the gradient, after backward, so that the optimizer of the weights does not move the factors."""
        self._gradient, values.grad = values.grad, None

    def step(self, values: Tensor, done: float) -> None:
        """One step, in place; one whose gradients are not finite is left out."""
        if self._gradient is None or not self._gradient.isfinite().all():
            return
        self.z, self._momentum, moved = accelerated_step(
            values.detach(), self._gradient, self._momentum, lr=self._lr(done), weight=self._weight, mu=self._mu
        )
        values.copy_(moved)

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`."""
        return {"z": self.z, "momentum": self._momentum}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        device = self.z.device
        self.z, self._momentum = state["z"].to(device), state["momentum"].to(device)
