"""The last word on a latency budget: the best candidates are really measured, and the winner keeps its limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from torch import nn

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.cost.latency.device_profile import Conditions
from autoprune.cost.latency.profile_files import read_profile
from autoprune.errors import BudgetError, ConfigError
from autoprune.latency.measure import AGREED, LEAST_REPEATS, Latency, machine_name, measure_many
from autoprune.space.groups import Widths
from autoprune.space.tracing.program import Example

METRIC = "latency_ms"
_ROUNDS = 6
_MARGIN = 0.995
"""A limit that is tightened because a network was measured above it goes a little below what it must."""

_CLOSE = 0.97
"""A network that was made smaller to keep the limit uses at least so much of it, or a larger one is tried, too."""


@final
@dataclass(frozen=True, slots=True)
class MeasuredFinal:
    """A candidate beside its measurement.

    Attributes:
        widths: member of the space.
        predicted: milliseconds from the profile.
        latency: as measured.
        scored: one of the candidates; False where it was made by tightening the limit, and has no score yet.
    """

    widths: Widths
    predicted: float
    latency: Latency
    scored: bool

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        parts = {name: getattr(self, name) for name in ("predicted", "scored")}
        return {"widths": list(self.widths), **parts, "latency": self.latency.to_json()}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> MeasuredFinal:
        """What `to_json` gave."""
        latency = Latency.from_json(plain["latency"])
        return cls(tuple(plain["widths"]), plain["predicted"], latency, plain["scored"])


@final
@dataclass(frozen=True, slots=True)
class LatencyChoice:
    """Which candidate wins once latencies are measured.

    Attributes:
        winner: the best candidate whose measured latency (`Latency.quiet`) keeps the limit.
        measured: every network measured, the candidates in their order first.
        limit: milliseconds.
        kept: False where even tightened limits gave no network that is measured below it; the fastest one wins then.
    """

    winner: MeasuredFinal
    measured: tuple[MeasuredFinal, ...]
    limit: float
    kept: bool

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        measured = [final.to_json() for final in self.measured]
        return {"winner": self.winner.to_json(), "measured": measured, "limit": self.limit, "kept": self.kept}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> LatencyChoice:
        """What `to_json` gave."""
        measured = tuple(map(MeasuredFinal.from_json, plain["measured"]))
        return cls(MeasuredFinal.from_json(plain["winner"]), measured, plain["limit"], plain["kept"])


def choose_by_latency(
    domain: BudgetedSpace,
    ranked: Sequence[Widths],
    build: Callable[[Widths], nn.Module],
    example: Example,
    *,
    repeats: int = 2 * LEAST_REPEATS,
) -> LatencyChoice | None:
    """Measure candidates under the conditions of the profile and take the best one that keeps the latency limit.

    Where all are measured above the limit, the best one is put onto a limit that is tighter by as much as it was
    measured above, a few times. All are then measured again in the same turns, and the fastest measurement of each
    counts: a machine that was busy for a while does not make the winner smaller than it must be.

    Args:
        domain: space and budget.
        ranked: candidates, the best first.
        build: widths -> the network; its weights do not matter.
        example: what the model was traced with.
        repeats: timed runs of each network, at least 50.

    Returns:
        The choice; None where the budget has no limit on latency, or its profile is of a machine elsewhere.

    Raises:
        ConfigError: the profile cannot be read, or this machine lacks its device.
        EvaluationError: a network does not run.
    """
    limit = next((x.upper for x in domain.budget.limits if x.metric == METRIC), None)
    settings = domain.budget.settings.get(METRIC, {})
    if limit is None or settings.get("elsewhere"):
        return None
    conditions = profile_conditions(settings["profile"])
    predict = domain.budget.metrics[METRIC]
    finals: dict[Widths, MeasuredFinal] = {}

    def measure_all(rows: Sequence[Widths]) -> None:
        found = measure_many([build(row) for row in rows], example, conditions, repeats=repeats, agree=AGREED)
        for widths, ms, latency in zip(rows, predict(np.array(rows)), found, strict=True):
            before = finals.get(widths)
            if before is None or latency.quiet < before.latency.quiet:
                finals[widths] = MeasuredFinal(widths, float(ms), latency, widths in ranked)

    measure_all(ranked)
    again = False  # whether the last round had nothing new to measure
    for _ in range(_ROUNDS):
        kept = _kept(list(finals.values()), limit)
        if kept is not None and (kept.scored or kept.latency.quiet >= _CLOSE * limit):
            break
        near = kept or min(finals.values(), key=lambda f: f.predicted)
        made = _onto(domain, ranked[0], _MARGIN * limit * near.predicted / near.latency.quiet)
        new = [] if made is None or made in finals else [made]
        if not new and (kept is not None or again):
            break
        again = not new
        measure_all([*finals, *new])
    kept = _kept(list(finals.values()), limit)
    winner = kept or min(finals.values(), key=lambda f: f.latency.quiet)
    return LatencyChoice(winner, tuple(finals.values()), limit, kept is not None)


def _kept(finals: Sequence[MeasuredFinal], limit: float) -> MeasuredFinal | None:
    """The best one that keeps the limit: the first that has a score, else the largest of those made smaller."""
    inside = [final for final in finals if final.latency.quiet <= limit]
    scored = next((final for final in inside if final.scored), None)
    return scored or max(inside, key=lambda final: final.predicted, default=None)


def profile_conditions(source: Any) -> Conditions:
    """The conditions of a profile, once this machine is known to be its own.

    Raises:
        ConfigError: it is of another machine; names both.
    """
    profile = read_profile(source)
    here = machine_name(profile.conditions.device)
    if here != profile.machine:
        raise ConfigError(
            f"the device profile is of {profile.machine}, but {profile.conditions.device} of this machine is {here}: "
            f"networks cannot be measured here; give latency_ms the setting elsewhere: true, or make a profile here"
        )
    return profile.conditions


def flops_of_equal_latency(domain: BudgetedSpace) -> float:
    """The FLOPs of the uniform network that uses up the latency limit: a FLOPs budget for a search to compare with."""
    return float(domain.budget.metrics["flops"](np.array([domain.uniform()]))[0])


def _onto(domain: BudgetedSpace, widths: Widths, latency: float) -> Widths | None:
    """These widths scaled onto a tighter latency limit, all other limits as they are; None below the smallest."""
    limits = {**domain.budget.constraints, METRIC: latency}
    try:
        tighter = domain.under(limits)
    except BudgetError:
        return None
    return tuple(int(w) for w in tighter.repair(np.array([widths]))[0])
