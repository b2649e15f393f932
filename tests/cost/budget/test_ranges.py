"""Several limits at once, ranges, metrics that are not quite monotone, and settings of metrics."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autoprune.cost import pricing
from autoprune.cost.budget import budget as budget_module
from autoprune.cost.budget.budget import BAND, Budget
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.cost.memory.peak_memory_mb import peak_memory_mb
from autoprune.cost.polynomial import CostFunction, WidthMatrix
from autoprune.cost.pricing import make_metric, price
from autoprune.cost.unpriced import UnpricedError
from autoprune.errors import BudgetError, ConfigError, RegistryError
from autoprune.space.groups import FloatArray, SearchSpace
from autoprune.space.tracing.shapes import with_shapes
from autoprune.space.tracing.trace import trace
from autoprune.testing.spaces import chain_space
from autoprune.verdict.baselines import plan
from autoprune.zoo import build_model

CHAIN = chain_space((16, 24, 32, 24))


def proposals(space: SearchSpace, n: int, seed: int) -> FloatArray:
    rng = np.random.default_rng(seed)
    drawn: FloatArray = np.exp(rng.normal(size=(n, len(space.groups)))) * np.array(space.full)
    return drawn


@settings(deadline=None, max_examples=60)
@example(flops=0.5, width=0.0, params=0.5, seed=0)
@given(st.floats(0.1, 0.9), st.floats(0.0, 1.0), st.floats(0.05, 0.9), st.integers(0, 2**20))
def test_repair_lands_inside_every_limit_or_the_budget_is_refused(
    flops: float, width: float, params: float, seed: int
) -> None:
    """A small space, whose members are listed one by one, is the judge."""
    space = chain_space((8, 9, 7))
    constraints = {"flops": {"min": f"{100 * flops * width}%", "max": f"{100 * flops}%"}, "params": f"{100 * params}%"}
    every = np.array(list(itertools.product(*(group.choices for group in space.groups))))
    costs, full = price(space), np.array([space.full])
    shares = {name: cost(every) / cost(full) for name, cost in costs.items()}
    possible = (shares["flops"] <= flops) & (shares["flops"] >= flops * width) & (shares["params"] <= params)
    try:
        domain = BudgetedSpace(space, constraints)  # type: ignore[arg-type]
    except BudgetError:
        assert not possible.any() or (possible.sum() < 4), "refused although many members are inside"
        return
    rows = domain.repair(proposals(space, 12, seed))
    assert domain.feasible(rows).all()
    found = {name: cost(rows) / cost(full) for name, cost in costs.items()}
    assert (found["flops"] <= flops).all()
    assert (found["flops"] >= flops * width - 1e-12).all()
    assert (found["params"] <= params).all()


def test_a_range_that_is_narrower_than_the_band_narrows_it() -> None:
    space = chain_space((64, 96, 128, 96))
    domain = BudgetedSpace(space, {"flops": {"min": "49.7%", "max": "50%"}})
    usage = domain.budget.usage(domain.repair(proposals(space, 200, 0)))
    assert usage.min() >= 49.7 / 50
    assert usage.max() <= 1
    outside = BudgetedSpace(space, {"flops": "50%"}).repair(proposals(space, 200, 0))
    assert (domain.feasible(domain.repair(outside))).all()


def test_rows_are_bent_no_further_than_it_takes() -> None:
    """FLOPs must stay high while parameters are few; rows that keep both limits by themselves stay as they are."""
    with torch.random.fork_rng(devices=[]):
        space = trace(build_model("resnet20"), torch.zeros(1, 3, 32, 32)).space
    plain = BudgetedSpace(space, {"params": "40%"})
    domain = BudgetedSpace(space, {"params": "40%", "flops": {"min": "45%", "max": "60%"}})
    given_rows = proposals(space, 100, 3)
    bent, straight = domain.repair(given_rows), plain.repair(given_rows)
    fine = domain.feasible(straight)
    assert 0.02 < fine.mean() < 0.98
    assert (bent[fine] == straight[fine]).all()
    assert domain.feasible(bent).all()
    assert (domain.repair(bent) == bent)[domain.budget.usage(bent) >= BAND].all()
    assert domain.feasible(domain.sample(100, np.random.default_rng(0))).all()
    assert domain.feasible(np.array([domain.uniform()])).all()


def test_all_limits_scale_together() -> None:
    domain = BudgetedSpace(CHAIN, {"flops": {"min": "30%", "max": "40%"}, "params": "60%"})
    half = domain.scaled(0.5)
    assert [(x.metric, x.percent, 100 * x.lower / x.full) for x in half.budget.limits] == [
        ("flops", pytest.approx(20), pytest.approx(15)),
        ("params", pytest.approx(30), 0),
    ]


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ({"flops": {"min": "60%", "max": "50%"}}, r"contradicts itself, min is above max; the smallest .* the largest"),
        ({"flops": {"min": "101%", "max": "110%"}}, r"flops ≥ .* cannot be reached: the smallest .*, the largest"),
        ({"flops": {"max": "50%", "mon": 1}}, r"unknown key 'mon'\. Did you mean 'min'\?; the smallest"),
        ({"flops": {"min": "50%"}}, r"it has no 'max'; the smallest network of this space costs .*, the largest"),
        ({"params": 10}, r"params ≤ 10 cannot be reached: the smallest network .* costs 46 .*the largest"),
        ({"flops": "some"}, r"'some' is not a limit; .*; the smallest network of this space costs"),
        (
            {"flops": {"min": "80%", "max": "90%"}, "params": "20%"},
            r"contradicts itself: no network inside all limits was found, the closest one has flops .*, params .* "
            r"Each limit by itself can be reached .*the smallest.*the largest",
        ),
        ({"latency": 3}, r"unknown metric 'latency'"),
    ],
)
def test_limits_that_cannot_be_kept_say_what_can(constraints: dict[str, Any], message: str) -> None:
    with pytest.raises((BudgetError, RegistryError), match=message):
        BudgetedSpace(chain_space((16, 32)), constraints)


def test_a_limit_on_a_range_is_written_out() -> None:
    text = str(Budget(chain_space((16, 32)), {"params": {"min": 1340, "max": "50%"}}))
    assert text == "1,340 ≤ params ≤ 2,680 (50 % of 5,360)"


@pytest.mark.parametrize("shares", [0.3, 0.55, 0.8])
def test_a_metric_with_steps_is_still_kept(shares: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a latency table may be: 63 channels slower than 64, and nothing but steps in between."""
    flops = make_metric("flops", CHAIN, {})

    def uneven(widths: WidthMatrix) -> FloatArray:
        w = np.atleast_2d(np.asarray(widths, dtype=np.float64))
        bumps: FloatArray = 1 + 0.15 * (np.floor(w) % 8 != 0).mean(axis=1)
        blocks = np.ceil(w / 8) * 8
        found: FloatArray = flops(blocks) * bumps
        return found

    def priced(*_: Any, **__: Any) -> dict[str, CostFunction]:
        return {"flops": uneven}

    monkeypatch.setattr(budget_module, "price", priced)
    domain = BudgetedSpace(CHAIN, {"flops": shares * float(uneven(np.array([CHAIN.full]))[0])})
    rows = domain.repair(proposals(CHAIN, 300, 0))
    assert domain.feasible(rows).all()
    assert all(tuple(row) in CHAIN for row in rows.tolist())
    assert np.median(domain.budget.usage(rows)) > 0.9


def test_peak_memory_and_flops_together_on_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model("resnet20")
    traced = trace(model, torch.zeros(1, 3, 32, 32))
    space = with_shapes(traced.space, traced.program, model)
    metrics = {"flops": make_metric("flops", space, {}), "peak_memory_mb": peak_memory_mb(space, batch=8)}
    monkeypatch.setattr(budget_module, "price", lambda *_, **__: metrics)
    domain = BudgetedSpace(space, {"flops": "60%", "peak_memory_mb": "70%"})
    rows = domain.sample(50, np.random.default_rng(0))
    assert domain.feasible(rows).all()
    used = {limit.metric: metrics[limit.metric](rows) / limit.upper for limit in domain.budget.limits}
    assert max(used["flops"].max(), used["peak_memory_mb"].max()) <= 1
    assert np.median(domain.budget.usage(rows)) >= BAND


def test_settings_are_checked_by_name() -> None:
    with pytest.raises(ConfigError, match=r"metric 'size_mb' has no setting 'dtipe'; its settings are dtype\. Did you"):
        make_metric("size_mb", CHAIN, {"dtipe": "float16"})
    with pytest.raises(ConfigError, match="metric 'flops' has no setting 'batch'; it has no settings"):
        Budget(CHAIN, {"flops": "50%"}, {"flops": {"batch": 8}})
    with pytest.raises(RegistryError, match="unknown metric 'flop'"):
        Budget(CHAIN, {"flops": "50%"}, {"flop": {}})
    with pytest.raises(ConfigError, match=r"metric 'size_mb' fails with settings|dtype 3 is unknown"):
        make_metric("size_mb", CHAIN, {"dtype": 3})


GIVES = {
    "None": lambda widths: None,
    "1.0": lambda widths: 1.0,
    "nan": lambda widths: np.full(len(widths), np.nan),
    "-1": lambda widths: -np.ones(len(widths)),
    "'a'": lambda widths: ["a", "a"],
}


@pytest.mark.parametrize("told", GIVES)
def test_a_metric_of_another_package_gives_costs(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "bind", lambda *_: lambda space: GIVES[told])
    with pytest.raises(ConfigError, match=rf"metric 'flops' must give \(N,\) finite costs .* gave .*{told}.*its code"):
        make_metric("flops", CHAIN, {})


def test_a_metric_that_fails_between_the_ends_is_told_with_widths(monkeypatch: pytest.MonkeyPatch) -> None:
    def costs(widths: np.ndarray) -> np.ndarray:
        full, smallest = (np.array(ends) for ends in (CHAIN.full, CHAIN.smallest))
        at_an_end = (widths == full).all(axis=1) | (widths == smallest).all(axis=1)
        return np.where(at_an_end, 1.0, np.nan)

    monkeypatch.setattr(pricing, "bind", lambda *_: lambda space: costs)
    with pytest.raises(ConfigError, match=r"metric 'flops' .*; for the widths \d+.* it gave nan\. Correct its code"):
        make_metric("flops", CHAIN, {})


def test_a_metric_that_forgets_rows_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "bind", lambda *_: lambda space: lambda widths: np.ones(len(widths[:2])))
    with pytest.raises(ConfigError, match=r"metric 'flops' .*; for \d+ networks it gave array\(\[1\., 1\.\]\)\. Corr"):
        make_metric("flops", CHAIN, {})


def test_what_costs_nothing_cannot_be_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pricing, "bind", lambda *_: lambda space: lambda widths: np.zeros(len(widths)))
    with pytest.raises(BudgetError, match="budget flops: the full network costs 0, so there is nothing to limit"):
        Budget(CHAIN, {"flops": "50%"})


def test_a_metric_that_lacks_a_setting_is_left_out_unless_it_is_limited() -> None:
    assert "latency_ms" not in price(CHAIN)
    with pytest.raises(
        UnpricedError,
        match=r"metric 'latency_ms' needs the setting 'profile': `autoprune latency profile MODEL` .*"
        r"metrics: \{latency_ms: \{profile: …\}\}",
    ):
        Budget(CHAIN, {"latency_ms": 3.0})


@pytest.mark.parametrize(
    "constraints",
    [{"flops": {"min": "38%", "max": "40%"}}, {"flops": {"min": "35%", "max": "60%"}, "params": "40%"}],
)
def test_a_range_that_full_residual_groups_leave_no_member_of_is_told_as_such(constraints: dict[str, Any]) -> None:
    """Where all members can be listed, too."""
    chain = chain_space((16, 24, 32), levels=4)
    groups = tuple(replace(group, residual=place == 1) for place, group in enumerate(chain.groups))
    domain = BudgetedSpace(replace(chain, groups=groups), constraints)
    assert domain.feasible(np.array([domain.uniform()])).all()
    with pytest.raises(BudgetError, match="cannot be reached with the widths that must stay full"):
        domain.uniform(inner_only=True)
    scores = [np.ones(group.width) for group in domain.space.groups]
    found = plan(domain, scores, allocations=(), random_candidates=1, seed=0)
    assert [name for name, _ in found] == ["uniform_all", "random_baseline"]
