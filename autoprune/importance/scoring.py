"""A chosen criterion, with the settings that all criteria have: reduction over layers and normalisation over groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from autoprune.config.parts import ChosenPart, NamedPart
from autoprune.config.settings import bind
from autoprune.errors import ConfigError, suggest
from autoprune.importance import CRITERIA
from autoprune.importance.evidence import GroupEvidence
from autoprune.importance.needs import DATA, Members, Need, needs_of
from autoprune.importance.normalisation import NORMS
from autoprune.space.groups import FloatArray

REDUCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda scores: scores.sum(dim=0),
    "mean": lambda scores: scores.mean(dim=0),
    "max": lambda scores: scores.amax(dim=0),
    "l2": lambda scores: scores.square().sum(dim=0).sqrt(),
    "first": lambda scores: scores[0],
}
"""(layers, width) scores -> (width,)."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class ChosenCriterion:
    """A criterion as it was chosen.

    Attributes:
        label: its name with its settings.
        score: called with evidence and a generator.
        needs: kinds of evidence.
        members: what is split by layer for the reduction.
        reduction: one of `REDUCTIONS`; None: as the criterion itself joins layers.
        normalise: one of `NORMS`.
        single: whether it holds for single weights.
    """

    label: str
    score: Callable[..., Any]
    needs: frozenset[Need]
    members: Members | None
    reduction: str | None
    normalise: str
    single: bool = False

    @classmethod
    def of(cls, criterion: ChosenPart) -> ChosenCriterion:
        """Look a criterion up.

        Args:
            criterion: a name, or {"name": …, "settings": {…}}.

        Raises:
            RegistryError: no such criterion.
            ConfigError: a setting that it does not have, or a shared one of a wrong value.
        """
        chosen = NamedPart.of(criterion, "criterion")
        own = {name: given for name, given in chosen.settings.items() if name not in CRITERIA.shared}
        score, part = bind(CRITERIA, chosen.name, own), CRITERIA.get(chosen.name)
        reduction, normalise = chosen.settings.get("reduction"), chosen.settings.get("normalise", "none")
        what = f"criterion {chosen.name!r}"
        if reduction is not None:
            _check(what, "reduction", reduction, REDUCTIONS)
        _check(what, "normalise", normalise, NORMS)
        members = _members(part)
        if reduction is not None and members is None:
            raise ConfigError(f"{what} has no scores layer by layer: leave its setting 'reduction' out")
        single = bool(getattr(part, "single", False))
        return cls(chosen.label, score, needs_of(part), members, reduction, normalise, single)

    def __call__(self, evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
        """(width,) scores of one group, before normalisation."""
        if self.reduction is None or self.members is None:
            scores: Tensor = self.score(evidence, rng)
            return scores
        layers = split(evidence, self.members) or [evidence]
        return REDUCTIONS[self.reduction](torch.stack([self.score(one, rng).double() for one in layers]))

    def normalised(self, scores: FloatArray) -> FloatArray:
        """(width,) scores of a group, divided as the setting says; a group of zeros stays as it is."""
        return scores / (NORMS[self.normalise](scores) or 1.0)


def looks_at_data(criterion: ChosenPart) -> bool:
    """Whether a criterion needs calibration data."""
    return bool(needs_of(CRITERIA.get(NamedPart.of(criterion, "criterion").name)) & DATA)


def split(evidence: GroupEvidence, members: Members) -> list[GroupEvidence]:
    """The evidence of each layer alone; a layer's weight and bias belong together."""
    if members != "filters":
        entries = getattr(evidence, members) or ()
        found = []
        for number, entry in enumerate(entries):
            alone: dict[str, Any] = {members: (entry,)}
            if members == "readers" and evidence.inputs is not None:
                alone["inputs"] = (evidence.inputs[number],)
            found.append(replace(evidence, **alone))
        return found
    layers: dict[str, list[int]] = {}
    for number in range(len(evidence.filters)):
        layers.setdefault(evidence.layers[number] if evidence.layers else str(number), []).append(number)
    return [_of_filters(evidence, numbers) for numbers in layers.values()]


def _of_filters(evidence: GroupEvidence, numbers: Sequence[int]) -> GroupEvidence:
    def picked(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[number] for number in numbers)

    gradients = evidence.gradients
    if gradients is not None:
        own = picked(gradients.weights), picked(gradients.weight_squares)
        gradients = replace(gradients, weights=own[0], weight_squares=own[1])
    known: dict[str, Any] = {
        name: picked(given) for name in ("layers", "kernels") if (given := getattr(evidence, name))
    }
    return replace(evidence, filters=picked(evidence.filters), gradients=gradients, **known)


def _check(what: str, setting: str, given: object, known: Mapping[str, object]) -> None:
    if not isinstance(given, str) or given not in known:
        raise ConfigError(
            f"{what}: {setting} cannot be {given!r}; choose one of {', '.join(known)}.{suggest(str(given), known)}"
        )


def _members(part: object) -> Members | None:
    """A criterion without a mark is one of weights."""
    found: Members | None = getattr(part, "members", "filters")
    return found
