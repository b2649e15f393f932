"""Rules that give densities, against the papers' formulas on single weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune.allocation import ALLOCATIONS
from autoprune.allocation.erk import erk
from autoprune.allocation.lamp import lamp
from autoprune.allocation.owl import outlier_shares, owl
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.importance.members import channel_scores, unit_scores
from autoprune.pipeline.rules import rule_inputs
from autoprune.verdict.rules import proposals

BUDGETS = ["15%", "30%", "60%"]


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolutions = nn.Conv2d(4, 16, 3, bias=False), nn.ReLU(), nn.Conv2d(16, 32, 3, bias=False), nn.ReLU()
        model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(128, 10, bias=False))
        with torch.no_grad():
            model[0].weight *= 3.0
        return model.eval()


def domain_of(budget: str, **density: Any) -> BudgetedSpace:
    traced = autoprune.trace(network(), torch.randn(1, 4, 6, 6), options={"density": {"min_density": 0.001, **density}})
    return BudgetedSpace(traced.search_space, {"params": budget})


def kept(domain: BudgetedSpace, widths: tuple[int, ...]) -> np.ndarray:  # type: ignore[type-arg]
    return np.array([d.kept(w) for d, w in zip(domain.space.densities, widths, strict=True)])


@pytest.mark.parametrize("budget", BUDGETS)
def test_erk_sums_to_the_budget_and_keeps_the_published_ratios(budget: str) -> None:
    domain = domain_of(budget, steps=1024)
    shapes = [d.shape for d in domain.space.densities]
    raw = np.array([sum(shape) / np.prod(shape) for shape in shapes])
    sizes = np.array([np.prod(shape) for shape in shapes], dtype=np.float64)
    target = float(budget[:-1]) / 100 * sizes.sum()
    low, high = 0.0, 1e6
    for _ in range(200):  # ε by bisection on single weights
        middle = (low + high) / 2
        low, high = (middle, high) if (np.minimum(1.0, middle * raw) * sizes).sum() <= target else (low, middle)
    found = kept(domain, erk(domain))
    assert 0.97 * target <= found.sum() <= target
    assert np.allclose(found / sizes, np.minimum(1.0, low * raw), atol=0.01)


@pytest.mark.parametrize("budget", BUDGETS)
def test_lamp_keeps_what_one_threshold_over_all_weights_keeps(budget: str) -> None:
    domain = domain_of(budget, steps=512)
    found = kept(domain, lamp(domain, unit_scores(domain.space, channel_scores(network(), domain.space, "lamp"))))
    values, owner = [], []
    for layer, weight in enumerate(p for p in network().parameters()):
        squares = np.sort(weight.detach().double().square().flatten().numpy())
        values.append(squares / squares[::-1].cumsum()[::-1])
        owner.append(np.full(len(squares), layer))
    order = np.argsort(-np.concatenate(values), kind="stable")
    chosen = np.concatenate(owner)[order[: int(found.sum())]]
    expected = np.bincount(chosen, minlength=3)
    steps = np.array([d.per_step for d in domain.space.densities])
    assert (np.abs(found - expected) <= 2 * steps + 0.01 * expected).all()


def test_owl_strays_from_one_density_as_the_authors_code_does() -> None:
    domain = domain_of("40%", steps=1024)
    rng = np.random.default_rng(0)
    slots = [rng.gamma(shape, size=d.units) for d, shape in zip(domain.space.densities, (0.1, 0.5, 1.0), strict=True)]
    shares = [float(np.sum(s > 5 * np.mean(s)) / len(s)) for s in slots]
    assert np.allclose(outlier_shares(slots, 5.0), shares)
    found = owl(domain, (), slots=slots, spread=0.1)
    ratio = np.array(found) / np.array(domain.space.full)
    scaled = (np.array(shares) - min(shares)) * (1 / (max(shares) - min(shares)) * 0.1 * 2)
    expected = scaled - scaled.mean()  # the authors' code, less its common density
    assert np.allclose(ratio - ratio.mean(), expected, atol=0.02)
    assert domain.budget.usage(np.array([found]))[0] >= 0.97


@pytest.mark.parametrize("wrong", [{"outlier": 0}, {"spread": 1.5}, {"spread": True}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    domain = domain_of("40%")
    with pytest.raises(ConfigError, match="owl: "):
        owl(domain, (), slots=[np.ones(d.units) for d in domain.space.densities], **wrong)


@pytest.mark.parametrize("pattern", ["unstructured", "N:4", "1x4"])
def test_every_rule_that_can_gives_densities_inside_the_budget(pattern: str) -> None:
    domain, model = domain_of("60%", pattern=pattern), network()
    rng = np.random.default_rng(0)
    inputs = rule_inputs(
        domain.space, model, lambda criterion: [rng.gamma(1.0, size=d.units) for d in domain.space.densities]
    )
    others = ("published", "cluster_count", "slimming_quantile", "apoz_sigma")  # of files, filters, norms, channels
    names = [name for name in ALLOCATIONS.names() if name not in others]
    scores = unit_scores(domain.space, channel_scores(model, domain.space, "magnitude"))
    found = dict(proposals(domain, scores, names, inputs=inputs))
    assert {"erk", "lamp", "owl", "global_threshold", "uniform_all", "knapsack"} <= found.keys()
    assert all(domain.feasible(np.array([widths]))[0] for widths in found.values())
    with pytest.raises(ConfigError, match="compares the filters of channels"):
        proposals(domain, scores, ["cluster_count"], inputs=inputs)
