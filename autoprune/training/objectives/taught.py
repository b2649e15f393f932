"""What objectives that learn from the base network have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn

from autoprune.config.parts import ChosenPart, NamedPart
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError
from autoprune.training.objectives.answers import Answers
from autoprune.training.objectives.base import Objective, build_objective
from autoprune.training.objectives.features import observed
from autoprune.training.objectives.logits import LogitLayout, logits_of

Observed: TypeAlias = tuple[Any, Mapping[str, Tensor]]
"""Outputs of a network, and by name what modules inside gave."""


class Taught(Objective):
    """A loss on the targets together with a loss on what the base network gives; without one, the first alone.

    Args:
        hard: another objective as the loss on the targets; None: cross entropy, binary where targets are numbers from 0
            to 1 for each output. It is not asked where there are no targets.
        label_smoothing: of the loss on the targets.
        name: of the objective, for messages.

    Raises:
        ConfigError: a smoothing outside of 0 to 1, or `hard` itself wants a teacher.
    """

    needs_teacher = True

    def __init__(self, name: str, *, hard: ChosenPart | None, label_smoothing: float) -> None:
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"{name}: label_smoothing must be at least 0 and below 1, got {label_smoothing!r}")
        self._name, self._smoothing = name, label_smoothing
        chosen = None if hard is None else NamedPart.of(hard, f"objective {name!r}: hard")
        self._hard = None if chosen is None else build_objective(chosen, label_smoothing)
        if self._hard is not None and self._hard.needs_teacher:
            raise ConfigError(
                f"{name}: hard is the loss on the targets, and {chosen.label!r} learns from the base network itself; "  # type: ignore[union-attr]
                f"choose one that does not, such as cross_entropy or mse, or use the objective combined"
            )

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `Objective.__call__`."""
        given = observed(model, batch, self.places)
        if self.teacher is None:
            return self._on_targets(given, batch)
        hard = None if batch.targets is None else self._on_targets(given, batch)
        taught = self.teach(batch, lambda teacher, asked: observed(teacher, asked, self.places))
        return self.joined(hard, given, taught, batch.targets)

    @abstractmethod
    def joined(self, hard: Tensor | None, given: Observed, taught: Observed, targets: Any) -> Tensor:
        """The whole loss.

        Args:
            hard: the loss on the targets; None where there are none.
            given: of the network in training.
            taught: of the base network.
            targets: of the batch.
        """

    def on_targets(self, outputs: Any, targets: Any) -> Tensor:
        """The loss on the targets where no other objective is given for it."""
        logits = logits_of(outputs, what=self._name)
        return LogitLayout.of(logits, targets).loss(logits, targets, smoothing=self._smoothing)

    def _on_targets(self, given: Observed, batch: Batch) -> Tensor:
        if self._hard is None:
            return self.on_targets(given[0], batch.targets)
        return self._hard(Answers(given[0], batch.inputs, self._name), batch)


def check_share(name: str, **shares: object) -> None:
    """Check that settings are numbers from 0 to 1.

    Raises:
        ConfigError: one is not.
    """
    for setting, value in shares.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise ConfigError(f"{name}: {setting} must be a number from 0 to 1, got {value!r}")


def check_above_zero(name: str, **numbers: object) -> None:
    """Check that settings are finite numbers above 0.

    Raises:
        ConfigError: one is not.
    """
    for setting, value in numbers.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            raise ConfigError(f"{name}: {setting} must be a finite number above 0, got {value!r}")
