"""Several objectives at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, final

import torch
from torch import Tensor, nn

from autoprune.config.parts import ChosenPart, NamedPart, PartOptions
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError
from autoprune.training.objectives.answers import Answers
from autoprune.training.objectives.base import Objective, build_objective
from autoprune.training.objectives.features import observed


@final
class Combined(Objective):
    """The sum of weight · objective over all parts; each network runs once per batch, whatever the number of parts.

    Args:
        parts: each a name, or a mapping of `name`, `settings` and `weight` (1 where it is left out, above 0).
        label_smoothing: of all parts that know it; that of the recipe where it is not given.

    Raises:
        ConfigError: no parts, a weight that is no number above 0, or a part that cannot be made.
    """

    needs_batch = True
    needs_teacher = True

    def __init__(
        self, *, parts: Sequence[ChosenPart] = ("cross_entropy", "distillation"), label_smoothing: float = 0.0
    ) -> None:
        if isinstance(parts, str) or not isinstance(parts, Sequence) or not parts:
            raise ConfigError(f"combined: parts must be a list of at least one objective, got {parts!r}")
        chosen = [_weighted(part) for part in parts]
        self._labels = [part.label for _, part in chosen]
        self._weights = [weight for weight, _ in chosen]
        self._parts = [build_objective(part, label_smoothing) for _, part in chosen]
        self.needs_teacher = any(part.needs_teacher for part in self._parts)
        self.needs_batch = any(part.needs_batch for part in self._parts)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `Objective.__call__`."""
        places = self.places
        given = observed(model, batch, places)
        taught = None
        if self.teacher is not None:
            taught = self.teach(batch, lambda teacher, asked: observed(teacher, asked, places))
        losses = []
        for weight, label, part in zip(self._weights, self._labels, self._parts, strict=True):
            if taught is not None and part.needs_teacher:
                part.teacher = Answers(taught[0], batch.inputs, label, taught[1])
            losses.append(weight * part(Answers(given[0], batch.inputs, label, given[1]), batch))
        return torch.stack(losses).sum()

    @property
    def places(self) -> tuple[str, ...]:
        """See `Objective.places`."""
        return tuple(sorted({place for part in self._parts for place in part.places}))

    def begin(self, model: nn.Module, batch: Batch) -> None:
        """See `Objective.begin`."""
        for part in self._parts:
            if part.needs_batch:
                part.teacher = self.teacher
                part.begin(model, batch)

    def parameters(self) -> Iterable[nn.Parameter]:
        """See `Objective.parameters`."""
        return chain.from_iterable(part.parameters() for part in self._parts)

    def state_dict(self) -> dict[str, Any]:
        """See `Objective.state_dict`."""
        return {str(number): part.state_dict() for number, part in enumerate(self._parts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Objective.load_state_dict`."""
        for number, part in enumerate(self._parts):
            part.load_state_dict(state[str(number)])


def _weighted(given: ChosenPart) -> tuple[float, NamedPart]:
    """A part and its weight."""
    if isinstance(given, str | PartOptions):
        return 1.0, NamedPart.of(given, "objective 'combined': parts")
    if not isinstance(given, Mapping):
        raise ConfigError(f"combined: each of parts must be a name, or a mapping with `name`, got {given!r}")
    weight = given.get("weight", 1.0)
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight < math.inf:
        raise ConfigError(f"combined: weight must be a finite number above 0, got {weight!r}")
    plain = {key: value for key, value in given.items() if key != "weight"}
    return float(weight), NamedPart.of(plain, "objective 'combined': parts")
