"""An exponential moving average of the weights of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn

from autoprune.training.state import on_cpu


@final
class WeightAverage:
    """After step t (from 0): average = d · average + (1 - d) · weights, d = min(decay, (1 + t) / (10 + t)).

    Polyak & Juditsky 1992; the decay that grows over the first steps is that of tf.train.ExponentialMovingAverage: with
    a constant one, short trainings would end near their initial weights. What does not train is not averaged. Buffers
    of floating-point numbers (running statistics) are, as in timm's ModelEmaV3; others are those of the last step.

    Args:
        model: read after each step.
        decay: of the average.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay, self._steps = model, decay, 0
        with torch.no_grad():
            self._averages = {name: tensor.clone() for name, tensor in self._followed().items()}

    @torch.no_grad()
    def update(self) -> None:
        """A step is done."""
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        self._steps += 1
        trained: tuple[list[Tensor], list[Tensor]] = ([], [])
        for name, tensor in self._followed().items():
            average = self._averages[name]
            if isinstance(tensor, nn.Parameter):
                trained[0].append(average)
                trained[1].append(tensor)
            else:  # a mask may hold infinities, which have no average
                average.copy_(torch.where(average == tensor, tensor, torch.lerp(average, tensor, 1 - decay)))
        if trained[0]:
            torch._foreach_lerp_(*trained, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model holds the averages."""
        kept = {name: tensor.detach().clone() for name, tensor in self._followed().items()}
        self.give()
        try:
            yield
        finally:
            self._fill(kept)

    def give(self) -> None:
        """Put the averages into the model."""
        self._fill(self._averages)

    def state_dict(self) -> dict[str, Any]:
        """The averages, on the CPU, and the number of steps."""
        return {"steps": self._steps, "averages": on_cpu(self._averages)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._steps = state["steps"]
        for name, average in self._averages.items():
            average.copy_(state["averages"][name])

    def _followed(self) -> dict[str, Tensor]:
        parameters = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        buffers = {name: b for name, b in self._model.named_buffers() if b.is_floating_point()}
        return {**parameters, **buffers}

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, tensor in self._followed().items():
            tensor.copy_(values[name])
