from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from smooth import half_of, loss, search

from autoprune.controllers.cmaes import CmaEs, _Distribution
from autoprune.errors import ConfigError

N, LAMBDA = 10, 10


def ellipsoid(x: np.ndarray) -> float:
    """A valley that is a thousand times longer than wide, turned in space."""
    turned, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((N, N)))
    return float((10.0 ** (3 * np.arange(N) / (N - 1)) * (turned @ x) ** 2).sum())


def evaluations_until(ask: Callable[[], np.ndarray], tell: Callable[[list[tuple[np.ndarray, float]]], None]) -> int:
    for generation in range(1_000):
        points = [ask() for _ in range(LAMBDA)]
        values = [ellipsoid(x) for x in points]
        if min(values) < 1e-6:
            return LAMBDA * generation
        tell(list(zip(points, values, strict=True)))
    return 10_000


def test_the_distribution_is_as_fast_as_the_cmaes_package_on_a_turned_valley() -> None:
    """The package also learns from bad points (negative weights), so it may be somewhat faster."""
    cmaes = pytest.importorskip("cmaes")
    peer = cmaes.CMA(mean=np.ones(N), sigma=0.3, population_size=LAMBDA, seed=1)
    theirs = evaluations_until(peer.ask, peer.tell)
    own = _Distribution(np.ones(N), 0.3, LAMBDA)
    rng = np.random.default_rng(1)
    ours = evaluations_until(
        lambda: own.sample(rng),
        lambda told: own.update(np.array([x for x, _ in sorted(told, key=lambda pair: pair[1])])),
    )
    assert theirs < 10_000
    assert ours < 1.6 * theirs


def test_a_point_from_afar_moves_the_mean_by_a_bounded_step() -> None:
    distribution = _Distribution(np.zeros(N), 0.1, LAMBDA)
    distribution.update(np.full((LAMBDA, N), 100.0))
    longest = 0.1 * (np.sqrt(N) + 2 * N / (N + 2))
    assert np.linalg.norm(distribution._m) <= longest + 1e-9


@pytest.mark.parametrize(("length", "stalled"), [(0.98, False), (1.02, True)])
def test_the_first_step_stalls_the_path_of_c_where_the_tutorial_says(length: float, stalled: bool) -> None:
    """In the first generation both p_s and what h_s divides it by hold sqrt(c_s (2 - c_s)): sqrt(mu_eff) |y_w| counts.

    The cmaes package counts one generation more than the tutorial and pycma.
    """
    distribution = _Distribution(np.zeros(N), 0.1, LAMBDA)
    weights = np.log((LAMBDA + 1) / 2) - np.log(np.arange(1, LAMBDA // 2 + 1))
    mu_eff = weights.sum() ** 2 / (weights**2).sum()
    expected = np.sqrt(N) * (1 - 1 / (4 * N) + 1 / (21 * N**2))
    step = length * (1.4 + 2 / (N + 1)) * expected / np.sqrt(mu_eff)
    distribution.update(np.tile(0.1 * step * np.eye(N)[0], (LAMBDA, 1)))
    assert (np.linalg.norm(distribution._p_c) == 0.0) == stalled


def test_the_distribution_closes_in_on_the_best_widths() -> None:
    found = search(CmaEs(half_of(), seed=0), lambda w: -loss(w, 2), 150)
    losses = [-score for _, score in found]
    assert np.mean(losses[-30:]) < 0.5 * np.mean(losses[:30])


@pytest.mark.parametrize(("settings", "message"), [({"population": 1}, "population"), ({"sigma": 0.0}, "sigma")])
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=f"cmaes: {message} must be"):
        CmaEs(half_of(), seed=0, **settings)  # type: ignore[arg-type]
