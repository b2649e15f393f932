from __future__ import annotations

import numpy as np
import pytest
from smooth import FULL, half_of, loss, search

from autoprune.controllers.base import Trial, TrialState
from autoprune.controllers.evolution import Evolution, Variant
from autoprune.errors import ConfigError
from autoprune.space.groups import Widths


def ratios(widths: list[Widths]) -> np.ndarray:
    return np.array(widths) / np.array(FULL)


@pytest.mark.parametrize(("trials", "young"), [(None, 24), (40, 10), (400, 100), (10_000, 100)])
def test_the_population_is_the_papers_or_a_quarter_of_the_search(trials: int | None, young: int) -> None:
    """What comes before the population is full does not depend on scores, what comes next does."""
    searches = [
        [w for w, _ in search(Evolution(half_of(), seed=0, trials=trials), lambda w, sign=sign: sign * w[0], young + 8)]
        for sign in (1.0, -1.0)
    ]
    assert searches[0][:young] == searches[1][:young]
    assert not set(searches[0][young:]) & set(searches[1][young:])


def test_the_oldest_dies_in_the_regularised_variant_only() -> None:
    """The best trial ever is forgotten after a population of worse ones, but for MetaPruning."""
    domain = half_of()
    best = domain.uniform()
    gap: dict[Variant, float] = {}
    variants: tuple[Variant, ...] = ("regularised", "metapruning")
    for variant in variants:
        controller = Evolution(domain, seed=0, variant=variant, population=10, sample=4, crossover=0.0, mutate=0.01)
        members = [tuple(map(int, row)) for row in domain.sample(12, np.random.default_rng(1))]
        controller.tell([Trial(0, best, TrialState.COMPLETE, 9.0)])
        controller.tell([Trial(1 + i, w, TrialState.COMPLETE, -float(i)) for i, w in enumerate(members)])
        children = ratios(controller.ask(16))
        gap[variant] = float(np.min(np.abs(np.log(children / ratios([best]))).mean(axis=1)))
    assert gap["metapruning"] < 0.5 * gap["regularised"]


def test_metapruning_breeds_half_mutants_with_a_tenth_of_their_genes_redrawn_from_the_ten_best() -> None:
    controller = Evolution(half_of(), seed=0, variant="metapruning", population=50)
    found = search(controller, lambda widths: -loss(widths, 0), 50)
    best = np.array([widths for widths, _ in sorted(found, key=lambda pair: -pair[1])[:10]])
    children = np.concatenate([controller._children() for _ in range(100)])
    inherited = (children[:, None, :] == best[None, :, :]).any(axis=1)
    crossovers = inherited.all(axis=1)
    assert 0.4 < crossovers.mean() < 0.6
    redrawn = (~inherited[~crossovers]).sum(axis=1)
    assert redrawn.mean() == pytest.approx(1 + 0.1 * 7, abs=0.15)  # at least one


def test_eagleeye_learns_nothing_and_cuts_no_group_by_more_than_r_before_repair() -> None:
    told, deaf = (Evolution(half_of(), seed=3, variant="eagleeye", largest_cut=0.4) for _ in range(2))
    first = told.ask(20)
    assert deaf.ask(20) == first
    told.tell([Trial(i, w, TrialState.COMPLETE, float(w[0])) for i, w in enumerate(first)])
    deaf.tell([Trial(i, w, TrialState.FAILED, None) for i, w in enumerate(first)])
    assert told.ask(20) == deaf.ask(20)
    narrow = ratios(first)
    assert (narrow.max(axis=1) / narrow.min(axis=1)).max() < 1 / 0.6 + 0.4  # one factor for all, but for rounding


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "regularized"}, "Did you mean 'regularised'"),
        ({"largest_cut": 1.0}, "largest_cut must be"),
        ({"crossover": -0.1}, "crossover must be"),
        ({"population": 4, "sample": 5}, "sample must be from 1 to population"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Evolution(half_of(), seed=0, **settings)  # type: ignore[arg-type]
