"""The last word on a latency budget: the best candidates are really measured, and the winner keeps its limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from torch import nn

from autoprune.cost.device_profile import Conditions, read_profile
from autoprune.cost.repair import BudgetedSpace
from autoprune.errors import BudgetError, ConfigError
from autoprune.latency.measure import LEAST_REPEATS, Latency, machine_name, measure_many
from autoprune.space.groups import Widths
from autoprune.space.program import Example

METRIC = "latency_ms"
_ROUNDS = 6
_MARGIN = 0.995
"""A limit that is tightened because a network was measured above it goes a little below what it must."""


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
    measured above, and measured again, a few times.

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

    def measured(rows: Sequence[Widths], *, scored: bool) -> list[MeasuredFinal]:
        found = measure_many([build(row) for row in rows], example, conditions, repeats=repeats)
        times = predict(np.array(rows))
        return [MeasuredFinal(w, float(p), t, scored) for w, p, t in zip(rows, times, found, strict=True)]

    finals = measured(list(ranked), scored=True)
    kept = next((f for f in finals if f.latency.quiet <= limit), None)
    tightened, best = limit, finals[0]
    for _ in range(_ROUNDS):
        if kept is not None:
            break
        tightened *= _MARGIN * limit / best.latency.quiet
        smaller = _onto(domain, ranked[0], tightened)
        if smaller is None or smaller == best.widths:
            break
        best = measured([smaller], scored=False)[0]
        finals.append(best)
        kept = best if best.latency.quiet <= limit else None
    winner = kept or min(finals, key=lambda f: f.latency.quiet)
    return LatencyChoice(winner, tuple(finals), limit, kept is not None)


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
        tighter = BudgetedSpace(domain.space, limits, metrics=domain.budget.settings)
    except BudgetError:
        return None
    return tuple(int(w) for w in tighter.repair(np.array([widths]))[0])
