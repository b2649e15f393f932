"""Whole networks from their kernels: a non-negative regression of measured latencies on `FEATURES`, and its error."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls
from scipy.stats import spearmanr

from autoprune.cost.latency.device_profile import HeldOut
from autoprune.cost.latency.latency_ms import FEATURES, KINDS
from autoprune.space.groups import FloatArray

_STRENGTH = 0.001
"""How much the prior weighs, in measured networks for each feature."""

_OUTLIER = 3.0
"""Residuals beyond so many robust standard deviations count less."""

_FOLDS = 5


def fit(features: FloatArray, ms: FloatArray) -> FloatArray:
    """Coefficients that predict these networks, none negative.

    Relative errors are minimised. Where networks do not tell, a kernel takes as long as it took alone, times what all
    of them take more or less inside networks, and nothing is added; outliers count less (Huber, three rounds).

    Args:
        features: (N, F) values of `FEATURES`.
        ms: (N,) measured milliseconds.
    """
    alone = np.array([float(name in KINDS) for name in FEATURES])
    prior = alone * float(np.median(ms / np.maximum(features @ alone, 1e-9)))
    relative = features / ms[:, None]
    scale = np.sqrt(_STRENGTH * len(ms)) * relative.mean(axis=0)  # a feature in units of its share of the latency
    weights = np.ones(len(ms))
    coefficients = prior
    for _ in range(3):
        rows = np.vstack([relative * weights[:, None], np.diag(scale)])
        coefficients, _ = nnls(rows, np.concatenate([weights, scale * prior]))
        residuals = relative @ coefficients - 1.0
        spread = max(1.4826 * float(np.median(np.abs(residuals))), 1e-4)
        weights = np.sqrt(np.minimum(1.0, _OUTLIER * spread / np.maximum(np.abs(residuals), 1e-12)))
    return coefficients


def held_out(features: FloatArray, ms: FloatArray) -> HeldOut:
    """The error on networks that the fit has not seen: each of five parts in turn is predicted from the others.

    Args:
        features: (N, F) values of `FEATURES`.
        ms: (N,) measured milliseconds.
    """
    part = np.arange(len(ms)) % _FOLDS
    predicted = np.empty(len(ms))
    for fold in range(_FOLDS):
        predicted[part == fold] = features[part == fold] @ fit(features[part != fold], ms[part != fold])
    return compare(predicted, ms, ms)


def compare(predicted: FloatArray, ms: FloatArray, again: FloatArray) -> HeldOut:
    """The error of (N,) predictions of measured milliseconds, beside the noise of measuring twice."""
    errors, noise = np.abs(predicted / ms - 1.0), np.abs(again / ms - 1.0)
    rank = float(spearmanr(predicted, ms).statistic)
    return HeldOut(len(ms), float(np.median(errors)), float(np.percentile(errors, 90)), rank, float(np.median(noise)))
