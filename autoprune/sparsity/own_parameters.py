"""Parameters that a method steps itself: gates and the like, which have no weight decay and no schedule of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from autoprune.training.state import on_cpu


@final
class OwnOptimizer:
    """Adam for some parameters of the model; the optimizer of the training never sees their gradients.

    Args:
        chosen: the parameters.
        lr: learning rate, the same over the whole training.
    """

    def __init__(self, chosen: Sequence[nn.Parameter], *, lr: float) -> None:
        self._chosen = tuple(chosen)
        self._adam = torch.optim.Adam(self._chosen, lr=lr)
        self._gradients: list[Tensor | None] = []

    def take(self) -> None:
        """Take the gradients, after backward."""
        self._gradients = [parameter.grad for parameter in self._chosen]
        for parameter in self._chosen:
            parameter.grad = None

    def step(self) -> None:
        """Do the step, after that of the weights; one whose gradients are not finite is left out."""
        if any(gradient is not None and not gradient.isfinite().all() for gradient in self._gradients):
            return
        for parameter, gradient in zip(self._chosen, self._gradients, strict=True):
            parameter.grad = gradient
        self._adam.step()
        for parameter in self._chosen:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`."""
        state: dict[str, Any] = on_cpu(self._adam.state_dict())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        self._adam.load_state_dict(dict(state))
