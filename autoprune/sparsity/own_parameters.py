"""Parameters that a method steps itself, as gates, which have no weight decay and no schedule of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

_BETAS = (0.9, 0.999)


@final
class OwnOptimizer:
    """Adam for some parameters of the model; the optimizer of the training never sees their gradients.

    Args:
        chosen: the parameters.
        lr: learning rate, the same over the whole training.
        shared: one second moment for all of them, so that gradients keep their ratios: of gates that a common pressure
            closes, those whose loss resists close last, where Adam's own steps would all be equally long.
    """

    def __init__(self, chosen: Sequence[nn.Parameter], *, lr: float, shared: bool = False) -> None:
        self._chosen, self._lr, self._shared = tuple(chosen), lr, shared
        self._gradients: list[Tensor | None] = []
        self._first = [torch.zeros_like(parameter) for parameter in chosen]
        self._second = [torch.zeros(() if shared else p.shape, device=p.device, dtype=p.dtype) for p in chosen]
        self._steps = 0

    def take(self) -> None:
        """Take the gradients, after backward."""
        self._gradients = [parameter.grad for parameter in self._chosen]
        for parameter in self._chosen:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Do the step, after that of the weights; one whose gradients are missing or not finite is left out."""
        if not all(gradient is not None and bool(gradient.isfinite().all()) for gradient in self._gradients):
            return
        self._steps += 1
        correct = [1 - beta**self._steps for beta in _BETAS]
        for parameter, gradient, first, second in zip(
            self._chosen, self._gradients, self._first, self._second, strict=True
        ):
            if gradient is None:
                continue
            squares = gradient.square()
            first.lerp_(gradient, 1 - _BETAS[0])
            second.lerp_(squares.mean() if self._shared else squares, 1 - _BETAS[1])
            parameter.sub_(self._lr * (first / correct[0]) / ((second / correct[1]).sqrt() + 1e-8))

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`."""
        return {"first": list(self._first), "second": list(self._second), "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        for own, kept in zip((*self._first, *self._second), (*state["first"], *state["second"]), strict=True):
            own.copy_(kept)
        self._steps = state["steps"]
