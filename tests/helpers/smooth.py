"""A smooth score with a known shape, and what a controller finds of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from autoprune.controllers import make_controller
from autoprune.controllers.base import Controller, Trial, TrialState
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import Widths
from autoprune.testing.spaces import chain_space

FULL = (64,) * 8


def half_of(full: tuple[int, ...] = FULL) -> BudgetedSpace:
    """Sixteen choices per group, half of the FLOPs."""
    return BudgetedSpace(chain_space(full, levels=16), {"flops": "50%"})


def loss(widths: Widths, seed: int) -> float:
    """What cutting loses: the square of each log ratio, weighted very differently from group to group."""
    weights = np.exp(np.random.default_rng(seed).standard_normal(len(widths)))
    return float((weights * np.log(np.array(widths) / FULL) ** 2).sum() / weights.sum())


def search(
    controller: Controller, score: Callable[[Widths], float], trials: int, *, batch: int = 1
) -> list[tuple[Widths, float]]:
    """Run a search; return its widths and scores."""
    found: list[tuple[Widths, float]] = []
    while len(found) < trials:
        asked = controller.ask(min(batch, trials - len(found)))
        scored = [(widths, score(widths)) for widths in asked]
        controller.tell([Trial(len(found) + i, w, TrialState.COMPLETE, s) for i, (w, s) in enumerate(scored)])
        found += scored
    return found


def least_loss(
    name: str, seed: int, trials: int, settings: Mapping[str, Any] | None = None, *, batch: int = 1
) -> float:
    """The least loss inside the budget that a search without noise finds."""
    domain = half_of()
    controller = make_controller(name, domain, seed=seed, settings=settings or {}, trials=trials)
    found = search(controller, lambda widths: -loss(widths, seed), trials, batch=batch)
    inside = domain.feasible(np.array([widths for widths, _ in found]))
    return min(-score for (_, score), ok in zip(found, inside, strict=True) if ok)
