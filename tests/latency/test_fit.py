from __future__ import annotations

import numpy as np
import pytest

from autoprune.cost.latency.latency_ms import FEATURES, KINDS
from autoprune.latency.fit import compare, fit, held_out
from autoprune.space.groups import FloatArray

N = 60


def networks(seed: int = 0) -> FloatArray:
    """Features of networks that differ in all of them; two kinds never occur."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.2, 1.0, size=(N, len(FEATURES)))
    values[:, 0] = 1.0
    for absent in ("depthwise", "untimed"):
        values[:, FEATURES.index(absent)] = 0.0
    return values


def truth() -> FloatArray:
    given = {"network": 0.3, "convolution": 1.4, "norm": 0.8, "activations": 0.2}
    return np.array([given.get(name, 0.0) for name in FEATURES])


def test_what_networks_are_made_of_is_found_and_predicts() -> None:
    features = networks()
    ms = features @ truth()
    coefficients = fit(features, ms)
    assert (coefficients >= 0).all()
    fresh = networks(1)
    np.testing.assert_allclose(fresh @ coefficients, fresh @ truth(), rtol=0.06)
    error = held_out(features, ms)
    assert error.networks == N
    assert error.median < 0.02
    assert error.spearman > 0.98


def test_a_few_disturbed_measurements_change_little() -> None:
    features = networks()
    ms = features @ truth()
    disturbed = ms.copy()
    disturbed[:5] *= 3.0
    np.testing.assert_allclose(features @ fit(features, disturbed), ms, rtol=0.08)


def test_what_networks_do_not_tell_is_as_measured_alone() -> None:
    features = np.zeros((12, len(FEATURES)))
    features[:, FEATURES.index("convolution")] = np.linspace(1, 2, 12)
    coefficients = dict(zip(FEATURES, fit(features, features.sum(axis=1)), strict=True))
    assert coefficients["convolution"] == pytest.approx(1.0, abs=0.01)
    assert coefficients["network"] == pytest.approx(0.0, abs=0.01)


def test_a_slow_hour_for_the_kernels_does_not_matter() -> None:
    features = networks()
    ms = features @ np.array([float(name in ("convolution", "norm")) for name in FEATURES])
    slow = features.copy()
    slow[:, 2 : 2 + len(KINDS)] *= 2.0
    np.testing.assert_allclose(slow @ fit(slow, ms), ms, rtol=0.03)


def test_the_error_is_that_of_networks_not_seen() -> None:
    features = networks()
    noise = np.random.default_rng(3).uniform(1.0, 3.0, size=N)  # nothing explains it
    assert held_out(features, noise).median > 0.15


def test_comparison() -> None:
    error = compare(np.array([1.0, 2.2, 3.0]), np.array([1.0, 2.0, 4.0]), np.array([1.01, 2.02, 4.04]))
    assert error.median == pytest.approx(0.1)
    assert error.spearman == pytest.approx(1.0)
    assert error.noise == pytest.approx(0.01)
    assert "median error 10.0%" in str(error)
