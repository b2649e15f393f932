"""Infinite feature selection: Roffo, Melzi & Cristani 2015, Infinite Feature Selection, ICCV, equations 1 to 10."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from autoprune.space.arrays import FloatArray


def infinite_feature_selection(values: FloatArray, *, alpha: float = 0.5) -> FloatArray:
    """(F,) importance of features: row sums of Σ_l (rA)^l over paths of all lengths l, (I - rA)⁻¹ - I.

    A_ij = α max(σ_i, σ_j) + (1 - α) (1 - |ρ_ij|), σ the standard deviations of the features, each scaled to [0, 1], and
    ρ Spearman's rank correlation; r = 0.9 / the spectral radius of A.

    Args:
        values: (examples, F).
        alpha: weight of the deviations.
    """
    low, high = values.min(axis=0), values.max(axis=0)
    spread = np.where(high > low, high - low, 1.0)
    deviations = ((values - low) / spread).std(axis=0)
    links = alpha * np.maximum(deviations[:, None], deviations) + (1 - alpha) * (1 - np.abs(_spearman(values)))
    radius = float(np.abs(np.linalg.eigvalsh(links)).max(initial=0.0))
    if radius == 0:
        return np.ones(len(deviations))
    identity = np.eye(len(links))
    scores: FloatArray = (np.linalg.inv(identity - 0.9 / radius * links) - identity).sum(axis=1)
    return scores


def _spearman(values: FloatArray) -> FloatArray:
    """(F, F) rank correlations; 0 with what is constant, 1 of each with itself."""
    ranks = rankdata(values, axis=0)
    centred = ranks - ranks.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0)
    units = centred / np.where(norms > 0, norms, 1.0)
    found: FloatArray = np.clip(units.T @ units, -1.0, 1.0)
    np.fill_diagonal(found, 1.0)
    return found
