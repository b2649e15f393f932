"""Rules that cut at one threshold, and tables of what single groups lose."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from autoprune.allocation.apoz_sigma import apoz_sigma
from autoprune.allocation.cluster_count import cluster_count
from autoprune.allocation.dcp_adapt import at_one_decrease
from autoprune.allocation.global_threshold import global_threshold
from autoprune.allocation.parts.curves import Curve, grid
from autoprune.allocation.random_widths import random
from autoprune.allocation.sensitivity_tolerance import at_one_tolerance
from autoprune.allocation.slimming_quantile import slimming_quantile
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, SearchSpace
from autoprune.testing.allocations import random_filters, random_scores, tied_space
from autoprune.testing.spaces import chain_space

WIDTHS = (16, 32, 64, 24)


def linear_space() -> SearchSpace:
    """Five groups whose costs add up: each is read by what is never cut."""
    space = chain_space((10, 10, 10, 10, 10))
    from autoprune.space.sizes import AffineSize, Operation

    products = [Operation(f"conv{g}", "conv", 100 * (g + 1), (AffineSize(0, ((g, 1),)),)) for g in range(5)]
    return SearchSpace(space.groups, (), tuple(products))


@pytest.mark.parametrize("seed", range(5))
def test_score_per_cost_comes_within_a_channel_of_the_best_knapsack(seed: int) -> None:
    domain = BudgetedSpace(linear_space(), {"flops": "50%"})
    scores = random_scores(domain.space, seed)
    members = np.array(list(itertools.product(range(1, 11), repeat=5)))
    sums = [np.concatenate([[0.0], np.cumsum(np.sort(s)[::-1])]) for s in scores]
    value = np.sum([s[members[:, g]] for g, s in enumerate(sums)], axis=0)
    best = value[domain.feasible(members)].max()

    def kept(widths: Sequence[int]) -> float:
        return sum(float(s[w]) for s, w in zip(sums, widths, strict=True))

    by_density = kept(global_threshold(domain, scores, normalise="none", per_cost="flops"))
    assert by_density >= best - max(float(s.max()) for s in scores)
    assert by_density >= kept(global_threshold(domain, scores, normalise="none")) - 1e-9


def test_what_costs_nothing_is_kept() -> None:
    domain = BudgetedSpace(linear_space(), {"flops": "50%"})
    widths = global_threshold(domain, random_scores(domain.space), per_cost="params")  # no tensors: nothing costs any
    assert domain.feasible(np.array([widths]))[0]


def test_slimming_cuts_the_smallest_scales_of_all_layers() -> None:
    domain = BudgetedSpace(chain_space(WIDTHS), {"flops": "40%"})
    scores = random_scores(domain.space)
    widths = slimming_quantile(domain, scores)
    kept = np.concatenate([np.sort(s)[::-1][:w] for s, w in zip(scores, widths, strict=True)])
    cut = np.concatenate([np.sort(s)[::-1][w:] for s, w in zip(scores, widths, strict=True) if w > 1])
    assert np.mean(kept > np.quantile(np.concatenate(scores), len(cut) / (len(kept) + len(cut)))) > 0.95


def test_a_given_quantile_keeps_what_the_published_code_keeps_up_to_one_factor() -> None:
    domain = BudgetedSpace(chain_space(WIDTHS), {"flops": "35%"})
    scores = [np.random.default_rng(g).permutation(np.linspace(0.1, 1.0 + g, w)) for g, w in enumerate(WIDTHS)]
    everything = np.sort(np.concatenate(scores))
    threshold = everything[int(len(everything) * 0.4)]
    counts = np.array([(s > threshold).sum() for s in scores])
    widths = np.array(slimming_quantile(domain, scores, quantile=0.4))
    assert np.ptp(np.log(widths / counts)) < 0.35


def test_apoz_cuts_what_is_far_below_the_mean_of_its_layer() -> None:
    domain = BudgetedSpace(chain_space((20, 20, 20)), {"flops": "75%"})
    rng = np.random.default_rng(0)
    scores = [0.5 + 0.01 * rng.random(20) for _ in range(3)]
    scores[1][:8] = 0.05  # 8 channels are nearly always zero
    widths = apoz_sigma(domain, [s * factor for s, factor in zip(scores, (1.0, 1.0, 0.2), strict=True)])
    z = [np.sort((s - s.mean()) / s.std()) for s in scores]
    cut = [20 - w for w in widths]
    highest_cut = max(float(one[c - 1]) for one, c in zip(z, cut, strict=True) if c)
    lowest_kept = min(float(one[c]) for one, c in zip(z, cut, strict=True))
    assert highest_cut <= lowest_kept + 0.7  # one threshold on the deviations, but for what the repair fills


def test_a_layer_of_equal_channels_goes_with_the_average() -> None:
    domain = BudgetedSpace(chain_space((20, 20, 20)), {"flops": "50%"})
    scores = [np.full(20, 0.1), *(np.random.default_rng(g).random(20) for g in (1, 2))]
    assert domain.feasible(np.array([apoz_sigma(domain, scores)]))[0]


def test_cluster_counts_are_those_of_scipy_at_one_similarity() -> None:
    space = chain_space((24, 24, 24))
    filters = random_filters(space)
    filters[1] = [np.repeat(filters[1][0][:6], 4, axis=0)]  # six different filters
    domain = BudgetedSpace(space, {"flops": "30%"})
    widths = np.array(cluster_count(domain, filters=filters))
    trees = [linkage(sets[0], "average", "cosine") for sets in filters]

    def counts(distance: float) -> list[int]:
        return [int(fcluster(tree, distance, "distance").max()) for tree in trees]

    nearest = min(np.abs(widths - counts(d)).max() for d in np.linspace(0.0, 2.0, 400))
    assert nearest <= 2  # the repair fills a notch or two
    assert widths[1] <= 6 + 1


@pytest.mark.parametrize("kind", ["average", "single", "complete"])
def test_repeated_and_empty_filters_are_no_clusters(kind: str) -> None:
    space = chain_space((12, 12))
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((12, 9))
    rows[4:8], rows[8:] = 3.0 * rows[:4], 0.0
    domain = BudgetedSpace(space, {"flops": "38%"})
    widths = cluster_count(domain, filters=[[rows], [rng.standard_normal((12, 108))]], linkage=kind)  # type: ignore[arg-type]
    assert widths[0] < widths[1]


def test_filters_of_tied_sets_count_units_and_misfits_are_refused() -> None:
    domain = BudgetedSpace(tied_space(), {"flops": "50%"})
    filters = random_filters(domain.space)
    assert cluster_count(domain, filters=filters) in domain.space
    with pytest.raises(ConfigError, match="'conv1' needs finite filters of"):
        cluster_count(domain, filters=[filters[0], filters[1][:1], *filters[2:]])
    with pytest.raises(ConfigError, match="filters of 1 groups given for a space of 4"):
        cluster_count(domain, filters=filters[:1])
    broken = [filters[0], [np.full_like(filters[1][0], np.nan), filters[1][1]], *filters[2:]]
    with pytest.raises(ConfigError, match="'conv1' needs finite filters of"):
        cluster_count(domain, filters=broken)


def curves_of(domain: BudgetedSpace, rates: Sequence[float]) -> list[Curve]:
    found = []
    for group, rate in zip(domain.space.groups, rates, strict=True):
        widths = np.array([*grid(group, 30), group.width])
        found.append(Curve(widths, rate * (1.0 - widths / group.width)))
    return found


def test_at_one_tolerance_every_group_loses_the_same() -> None:
    domain = BudgetedSpace(chain_space((100, 100, 100)), {"flops": "50%"})
    rates = (1.0, 2.0, 4.0)
    widths = np.array(at_one_tolerance(domain, curves_of(domain, rates)))
    losses = np.array(rates) * (1.0 - widths / 100)
    assert np.ptp(losses) < 0.05 * losses.mean() + 0.05


def test_more_channels_are_added_until_they_help_less_than_elsewhere() -> None:
    domain = BudgetedSpace(chain_space((100, 100, 100)), {"flops": "25%"})
    curves = []
    for group, rate in zip(domain.space.groups, (0.05, 0.07, 0.1), strict=True):
        widths = np.array([*grid(group, 99), group.width])
        curves.append(Curve(widths, np.exp(-rate * widths) - np.exp(-rate * 100)))
    found = np.array(at_one_decrease(domain, curves))
    slopes = [
        r * np.exp(-r * w) / (np.exp(-r) - np.exp(-r * 100)) for r, w in zip((0.05, 0.07, 0.1), found, strict=True)
    ]
    assert np.ptp(slopes) < 0.25 * np.mean(slopes)
    assert found[0] > found[1] > found[2]


def test_a_bump_in_a_curve_does_not_stop_a_group_early() -> None:
    domain = BudgetedSpace(chain_space((40, 40)), {"flops": "50%"})
    widths = np.array([1, 10, 20, 30, 40])
    bumpy = Curve(widths, np.array([9.0, 8.9, 1.0, 0.9, 0.0]))  # little is won by 10, much by 20
    flat = Curve(widths, np.array([9.0, 0.1, 0.05, 0.02, 0.0]))
    found = at_one_decrease(domain, [bumpy, flat])
    assert found[0] >= 20


def test_curves_without_any_loss_still_meet_the_budget() -> None:
    domain = BudgetedSpace(chain_space((40, 40)), {"flops": "50%"})
    widths = np.array([1, 20, 40])
    nothing: list[Curve] = [Curve(widths, np.zeros(3)) for _ in range(2)]
    for rule in (at_one_decrease, at_one_tolerance):
        assert domain.feasible(np.array([rule(domain, nothing)]))[0]


def test_random_widths_follow_their_seed() -> None:
    domain = BudgetedSpace(chain_space(WIDTHS), {"flops": "50%"})
    none: Sequence[FloatArray] = ()
    assert random(domain, none, seed=3) == random(domain, none, seed=3) != random(domain, none, seed=4)
