"""Random widths on the budget: the control of Li et al. 2022, Revisiting Random Channel Pruning (arXiv 2205.05676)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, Widths


def random(domain: BudgetedSpace, scores: Sequence[FloatArray] = (), *, seed: int = 0) -> Widths:
    """Return one random member on the budget: independent uniform ratios per group, scaled together and rounded.

    Other seeds are other networks; the scores are not looked at. The random baselines of a run are drawn alike, but
    with its own seed.

    Args:
        domain: the space under its budget.
        scores: not looked at.
        seed: a whole number of at least 0.

    Raises:
        ConfigError: the seed is none.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ConfigError(f"random: seed must be a whole number of at least 0, got {seed!r}")
    return tuple(int(w) for w in domain.sample(1, np.random.default_rng(seed))[0])
