"""A penalty on what a pass has made, added where the loss is: before its graph is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.training.objectives.base import Objective


@final
class WithinLoss(Objective):
    """An objective, and a penalty that is asked for after each call of it.

    Args:
        goal: the objective.
        added: gives the penalty, a scalar.
    """

    def __init__(self, goal: Objective, added: Callable[[], Tensor]) -> None:
        self._goal, self._added = goal, added
        self.needs_teacher, self.needs_batch = goal.needs_teacher, goal.needs_batch

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `Objective.__call__`."""
        self._goal.teacher, self._goal.memory = self.teacher, self.memory
        return self._goal(model, batch) + self._added()

    def begin(self, model: nn.Module, batch: Batch) -> None:
        """See `Objective.begin`."""
        self._goal.teacher = self.teacher
        self._goal.begin(model, batch)

    def parameters(self) -> Iterable[nn.Parameter]:
        """See `Objective.parameters`."""
        return self._goal.parameters()

    def state_dict(self) -> dict[str, Any]:
        """See `Objective.state_dict`."""
        return self._goal.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Objective.load_state_dict`."""
        self._goal.load_state_dict(state)

    @property
    def places(self) -> tuple[str, ...]:
        """See `Objective.places`."""
        return self._goal.places
