"""Feature distillation: what the base network gives inside as targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from autoprune.config.parts import ChosenPart
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError, suggest
from autoprune.randomness import seeded
from autoprune.space.copying import copy_network
from autoprune.training.objectives.features import observed, stage_ends
from autoprune.training.objectives.projections import Projections
from autoprune.training.objectives.relative_error import relative_error
from autoprune.training.objectives.taught import Observed, Taught, check_above_zero


@final
class FeatureDistillation(Taught):
    """The loss on the targets + weight · mean over places of |P f - teacher's f|² / |teacher's f|².

    P is the identity where the cut left the width, and else a linear map of the channels that is trained along with the
    network and is no part of it (`Projections`). Places in blocks that the cut left out are passed over. Departs from
    the paper: places are trained together with the task rather than in a stage before it, errors are relative, so that
    one weight serves all places, and maps begin at their least-squares fit.

    Args:
        at: names of modules; None: the ends of stages (`stage_ends`), found in the base network.
        weight: of the features, above 0.
        label_smoothing: of the loss on the targets; that of the recipe where it is not given.
        hard: another objective as the loss on the targets.

    Raises:
        ConfigError: a setting out of its range.
    """

    needs_batch = True

    def __init__(
        self,
        *,
        at: Sequence[str] | None = None,
        weight: float = 1.0,
        label_smoothing: float = 0.0,
        hard: ChosenPart | None = None,
    ) -> None:
        check_above_zero("feature_distillation", weight=weight)
        if at is not None and (isinstance(at, str) or not at or not all(isinstance(one, str) for one in at)):
            raise ConfigError(f"feature_distillation: at must be a list of names of modules, got {at!r}")
        super().__init__("feature_distillation", hard=hard, label_smoothing=label_smoothing)
        self._at, self._weight = None if at is None else tuple(at), weight
        self._places: tuple[str, ...] | None = self._at
        self._projections: Projections | None = None

    @property
    def places(self) -> tuple[str, ...]:
        """See `Taught.places`."""
        return self._places or ()

    def begin(self, model: nn.Module, batch: Batch) -> None:
        """See `Objective.begin`."""
        if self.teacher is None:
            return
        if self._at is None:
            self._places = stage_ends(self.teacher, batch)
            if not self._places:
                raise ConfigError(
                    "feature_distillation: the base network has no module inside whose output could be compared; name "
                    "modules in `at`, or choose distillation"
                )
        student = copy_network(model).eval()
        with seeded(0), torch.no_grad():
            known = observed(self.teacher, batch, self.places)[1]
            given = observed(student, batch, self.places)[1]
        for place in self._at or ():
            if place not in known:
                names = [name for name, _ in self.teacher.named_modules() if name]
                raise ConfigError(
                    f"feature_distillation: the base network has no module {place!r} that gives a tensor."
                    f"{suggest(place, names)}"
                )
        device = next((leaf.device for leaf in known.values()), torch.device("cpu"))
        self._projections = Projections(given, known).to(device)

    def parameters(self) -> Iterable[nn.Parameter]:
        """See `Objective.parameters`."""
        return () if self._projections is None else self._projections.parameters()

    def state_dict(self) -> dict[str, Any]:
        """See `Objective.state_dict`."""
        return {} if self._projections is None else dict(self._projections.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Objective.load_state_dict`."""
        if self._projections is not None:
            self._projections.load_state_dict(state)

    def joined(self, hard: Tensor | None, given: Observed, taught: Observed, targets: Any) -> Tensor:
        """See `Taught.joined`."""
        inside, known = given[1], taught[1]
        errors = []
        for place in self.places:
            if place in inside and place in known:
                features = inside[place] if self._projections is None else self._projections(place, inside[place])
                if features.shape != known[place].shape:
                    raise EvaluationError(
                        f"feature_distillation: {place!r} gives {tuple(known[place].shape)} in the base network and "
                        f"{tuple(features.shape)} in the trained one; name other modules in `at`"
                    )
                errors.append(relative_error(features, known[place]))
        if not errors:
            if hard is None:
                raise EvaluationError(
                    "feature_distillation: there are neither targets nor modules to compare; name modules in `at`"
                )
            return hard
        soft = self._weight * torch.stack(errors).mean()
        return soft if hard is None else soft + hard
