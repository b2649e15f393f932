"""The rungs of an evaluator that scores in steps, each of a scale of its own, and lets only some candidates go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, final

from autoprune.config.parts import NamedPart
from autoprune.errors import ConfigError

USUAL = 1 / 3
"""Share of the candidates that go on where nobody says; Li et al. 2020 use a third or a quarter."""


@final
@dataclass(frozen=True, slots=True)
class Rungs:
    """After which steps of an evaluation it is decided whether a candidate goes on, and how many do.

    Attributes:
        steps: what each step is called, in their order; the last one's scores are those that count.
        keep: share of the candidates that go on after each step but the last.

    Raises:
        ConfigError: fewer than two steps, or shares that are not one in (0, 1] for each step but the last.
    """

    steps: tuple[str, ...]
    keep: tuple[float, ...]

    def __post_init__(self) -> None:
        rungs = len(self.steps) - 1
        if rungs < 1:
            raise ConfigError(
                f"evaluator 'chain': steps must be a list of at least two evaluators, got {len(self.steps)}; a single "
                f"one is named as the evaluator itself"
            )
        if len(self.keep) != rungs:
            raise ConfigError(
                f"evaluator 'chain': keep must hold one share for each step but the last, {rungs} for {rungs + 1} "
                f"steps, got {len(self.keep)}: {list(self.keep)}"
            )
        for place, share in enumerate(self.keep):
            if not (isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1):
                raise ConfigError(
                    f"evaluator 'chain': keep[{place}] must be above 0 and at most 1, the share of the candidates that "
                    f"go on after {self.steps[place]}, got {share!r}"
                )

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """The rungs of a chain with these settings, as a job gives them."""
        steps, keep = settings.get("steps"), settings.get("keep")
        if not isinstance(steps, list | tuple):
            raise ConfigError(
                f"evaluator 'chain': steps must be a list of at least two evaluators, the cheapest first, got {steps!r}"
            )
        names = tuple(NamedPart.of(step, f"evaluator.settings.steps[{i}]").name for i, step in enumerate(steps))
        return cls(names, shares(keep, len(steps)))

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the steps that is done at each rung: (i + 1) / n.

        Not of the cost: that is known only once it was paid, and differs from machine to machine.
        """
        return tuple((i + 1) / len(self.steps) for i in range(len(self.keep)))

    def place(self, share: float) -> int | None:
        """Which rung an evaluation stands on after this share of its steps, None between two of them."""
        return next((i for i, rung in enumerate(self.shares) if abs(rung - share) < _ROUNDING), None)


_ROUNDING = 1e-9


def shares(keep: object, steps: int) -> tuple[float, ...]:
    """What the setting `keep` of so many steps says.

    Raises:
        ConfigError: it is no list.
    """
    if keep is None:
        return (USUAL,) * (steps - 1)
    if not isinstance(keep, Sequence) or isinstance(keep, str):
        raise ConfigError(
            f"evaluator 'chain': keep must be a list of shares, one for each step but the last, such as "
            f"{[0.25] * max(1, steps - 1)}, got {keep!r}"
        )
    return tuple(keep)
