"""Erdős–Rényi-Kernel: Evci et al. 2020, Rigging the Lottery, arXiv 1911.11134, section 3 (1); first in Mocanu 2018."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.allocation.parts.path import at_ratios
from autoprune.allocation.parts.shapes import layers, ratios_of_shares
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, SearchSpace, Widths


def erk(domain: BudgetedSpace, scores: Sequence[FloatArray] = (), *, power: float = 1.0) -> Widths:
    """Keep a share of every layer's weights that follows from its shape alone.

    A layer of shape n_in, n_out, k_w, k_h keeps ε (n_in + n_out + k_w + k_h) / (n_in n_out k_w k_h) of its weights, at
    most all of them: small layers stay denser. ε is what meets the budget. The paper leaves single weights out; for
    channels, a group keeps the square root of the share that its writing layers keep together, as a layer keeps the
    product of the ratios on both sides of it. Needs shapes only; scores are not looked at.

    Args:
        domain: the space under its budget.
        scores: not looked at.
        power: exponent of the share before it is scaled, as in the authors' code; 0 is uniform.

    Raises:
        ConfigError: the power is not a number of at least 0.
    """
    if not isinstance(power, int | float) or isinstance(power, bool) or not 0 <= power < np.inf:
        raise ConfigError(f"erk: power must be a number of at least 0, got {power!r}")
    shares = {name: share**power for name, share in densities(domain.space).items()}
    return at_ratios(domain, ratios_of_shares(domain.space, shares))


def densities(space: SearchSpace) -> dict[str, float]:
    """Name of each layer's weights -> its density for ε = 1, not yet limited to 1."""
    return {t.name: float(sum(t.shape) / np.prod(t.shape, dtype=np.float64)) for t in layers(space)}
