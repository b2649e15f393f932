"""Every setting of every controller runs through a whole search on three networks: session, engine, ledger, choice.

The settings come from the signatures; one without a try here fails the first test.
"""

from __future__ import annotations

import inspect
import itertools
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import optuna
import pytest
from optuna.storages import InMemoryStorage
from small_networks import NETWORKS, network, profile_of, space_of

from autoprune.allocation import UNIFORM
from autoprune.config.space import SpaceOptions
from autoprune.controllers import CONTROLLERS, make_controller
from autoprune.controllers.base import Trial, TrialState
from autoprune.controllers.wrappers.coarse import Per
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.engines.local import run
from autoprune.errors import BudgetError, ConfigError
from autoprune.evaluators.base import Evaluator
from autoprune.importance.members import channel_scores, unit_scores
from autoprune.space.groups import FloatArray, Widths
from autoprune.space.options.ties import tied_sets
from autoprune.trials.ledger import Ledger
from autoprune.trials.selection import shortlist, sure_leads
from autoprune.trials.session import SearchSession
from autoprune.verdict.baselines import plan

GIVEN = {"domain", "seed", "importance", "learned"}
"""What a controller is made with that is no setting."""

TRIES: dict[str, dict[str, list[Any]]] = {
    "surrogate": {"startup": [3], "trials": [5], "prior": ["nsc"]},
    "evolution": {
        "trials": [40],
        "variant": ["regularised", "metapruning", "eagleeye"],
        "population": [3],
        "sample": [2],
        "mutate": [0.6],
        "crossover": [1.0],
        "largest_cut": [0.9],
    },
    "random": {},
    "annealing": {"trials": [5], "start": [2.0], "stop": [0.5], "step": [0.2], "least_step": [0.5]},
    "cmaes": {"population": [4], "sigma": [0.1]},
    "abc": {"sources": [3], "limit": [1], "changed": [4]},
    "level_switch": {"trials": [40], "offspring": [3], "levels": [4], "switches": [1]},
    "knapsack_plus": {"trials": [40], "points": [1], "table": [0.2], "distance": [0.2]},
    "partial_order": {"trials": [40], "least": [0.8], "budgets": [2], "startup": [2]},
    "constraint_aware": {"trials": [40], "stages": [2], "cooling": [2.0], "startup": [2]},
    "legr": {"trials": [40]},
    "netadapt": {"trials": [40], "reduction": [0.2], "decay": [0.5]},
    "autoslim": {"trials": [40], "parts": [2]},
    "fastnas": {"trials": [40], "step": [0.25]},
    "amc": {"trials": [40], "least": [0.4], "warmup": [3]},
    "pareto": {
        "trials": [40],
        "budgets": [[], [0.9, 0.75]],
        "metrics": [["params"], ["flops", "peak_memory_mb"]],
        "population": [4],
    },
}
"""Controller -> setting -> values that are tried, each in a search of its own."""

SHARED: dict[str, list[Any]] = {"per": list(get_args(Per)), "trust_region": [0.3]}
"""Settings that every controller takes."""

SAMPLERS: dict[str, list[dict[str, Any]]] = {
    "RandomSampler": [{}],
    "TPESampler": [{}, {"n_startup_trials": 2, "multivariate": True}],
    "CmaEsSampler": [{}, {"n_startup_trials": 2}],
    "NSGAIISampler": [{}, {"population_size": 4}],
    "NSGAIIISampler": [{}, {"population_size": 4}],
    "QMCSampler": [{}, {"qmc_type": "halton", "scramble": True}],
    "BruteForceSampler": [{}],
    "GPSampler": [{"n_startup_trials": 6}],
}
"""Samplers of Optuna -> settings."""

REFUSED = {
    "GridSampler": "needs the setting 'search_space'",
    "PartialFixedSampler": "no setting 'seed'|needs the setting",
}
"""Samplers that cannot propose widths, and what is said."""

BAD: list[tuple[str, dict[str, Any], str]] = [
    ("random", {"per": "stages"}, "per cannot be 'stages'.*Did you mean 'stage'"),
    ("random", {"per": None}, "per cannot be None"),
    ("random", {"per": ["stage"]}, "per cannot be"),
    *(("random", {"trust_region": value}, "trust_region must be a distance") for value in (0, -1.0, True, "wide", [])),
    ("random", {"trust_region": float("nan")}, "trust_region must be a distance"),
    ("evolution", {"variant": "regularized"}, "variant 'regularized' is unknown.*Did you mean 'regularised'"),
]

FLOPS = {"flops": "50%"}
TRIALS, FEW = 7, 4


def cases() -> list[tuple[str, dict[str, Any]]]:
    """(controller, settings), one setting changed at a time."""
    found: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in TRIES]
    for name, settings in TRIES.items():
        found += [(name, {setting: value}) for setting, values in settings.items() for value in values]
        found += [(name, {setting: value}) for setting, values in SHARED.items() for value in values]
    found += [(f"optuna:{name}", given) for name, tries in SAMPLERS.items() for given in tries]
    found += [("optuna:TPESampler", {"per": "stage"}), ("optuna:TPESampler", {"trust_region": 0.3})]
    return [
        *found,
        ("surrogate", {"per": "stage", "trust_region": 0.3}),
        ("pareto", {"per": "stage", "budgets": [0.8]}),
    ]


def on_three_networks() -> list[Any]:
    """(controller, settings, network, whether it is repeated): each case on one network, each controller on all.

    The cases take turns with the networks, all others are slow; where a proposal takes seconds the smallest one serves.
    """
    found = []
    for number, (name, settings) in enumerate(cases()):
        turn = "transformer" if name == "optuna:GPSampler" else NETWORKS[number % len(NETWORKS)]
        for network_name in NETWORKS:
            serves = network_name == turn or not (settings or name == "optuna:GPSampler")
            found.append(
                pytest.param(
                    *(name, settings, network_name, network_name == turn and not settings),
                    id=f"{name}-{settings}-{network_name}",
                    marks=[] if serves else [pytest.mark.slow],
                )
            )
    return found


class WidthScore(Evaluator):
    """Scores widths: each group's logarithm weighs differently, and a little noise by the seed."""

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False) -> float:
        weights = np.random.default_rng(zlib.crc32(bytes(len(widths)))).uniform(0.2, 2.0, len(widths))
        noise = 0.05 * np.random.default_rng(seed).standard_normal()
        return float(weights @ np.log(np.maximum(widths, 0.5)) + noise)


@cache
def importance_of(name: str) -> Sequence[FloatArray]:
    space = space_of(name)
    return unit_scores(space, channel_scores(network(name), space, "l1"))


@cache
def domain_of(name: str) -> BudgetedSpace:
    return BudgetedSpace(space_of(name), FLOPS)


def whole_search(
    domain: BudgetedSpace,
    controller: str,
    settings: Mapping[str, Any],
    *,
    seed: int = 0,
    importance: Sequence[FloatArray] | None = None,
    trials: int = TRIALS,
) -> tuple[list[Trial], Widths]:
    """The trials, baselines first, and the widths that are chosen."""
    scores = importance or [np.ones(group.width) for group in domain.space.groups]
    made = make_controller(controller, domain, seed=seed, settings=settings, trials=trials, importance=importance)
    session = SearchSession(
        domain,
        made,
        Ledger(InMemoryStorage(), "search", domain.space),
        plan=plan(domain, scores, allocations=(), random_candidates=1, seed=seed),
        trials=trials,
        seed=seed,
    )
    run(session, WidthScore())
    uniform = {trial.widths for trial in session.trials if trial.origin in UNIFORM}
    (winner,) = shortlist(sure_leads(domain, session.trials, uniform), 1, domain, uniform)
    for share, widths in made.winners().items():
        assert domain.scaled(share).feasible(np.array([widths])).all()
    return session.trials, winner


def assert_sound(domain: BudgetedSpace, trials: Sequence[Trial], winner: Widths, *, within: bool, n: int) -> None:
    own = [trial for trial in trials if trial.origin == "controller"]
    assert len(own) == n
    assert all(trial.state is TrialState.COMPLETE for trial in trials)
    assert all(domain.space.check(trial.widths) == trial.widths for trial in trials)
    assert domain.feasible(np.array([winner])).all()
    if within:
        assert domain.feasible(np.array([trial.widths for trial in own])).all()


def spread(domain: BudgetedSpace, widths: Widths, per: Per) -> float:
    """The largest difference of two ratios that are meant to be one, beyond a notch of the wider choices."""
    groups = domain.space.groups
    sets = tied_sets(domain.space, SpaceOptions(per=per))
    ratios = [width / group.width for width, group in zip(widths, groups, strict=True)]
    notch = [max(np.diff(group.choices)) / group.width if len(group.choices) > 1 else 0.0 for group in groups]
    return max(
        (abs(ratios[a] - ratios[b]) - max(notch[a], notch[b]) for s in sets for a, b in itertools.combinations(s, 2)),
        default=0.0,
    )


def refusal_of(name: str, settings: Mapping[str, Any], domain: BudgetedSpace) -> bool:
    """True where a trust region has no meaning: the controller exceeds the budget, or searches for several."""
    plain = make_controller(name, domain, seed=0, settings={k: v for k, v in settings.items() if k != "trust_region"})
    return "trust_region" in settings and not (plain.keeps_budget and plain.one_budget)


@pytest.mark.parametrize("name", CONTROLLERS.names())
def test_every_setting_has_a_try(name: str) -> None:
    factory = CONTROLLERS.get(name)
    settings = set(inspect.signature(factory).parameters) - GIVEN
    assert settings == set(TRIES[name])
    hints = get_type_hints(factory.__init__)
    for setting in settings:
        assert TRIES[name][setting]
        if get_origin(hints[setting]) is Literal:
            assert TRIES[name][setting] == list(get_args(hints[setting]))


def test_every_shared_setting_and_every_sampler_has_a_try() -> None:
    assert list(SHARED) == list(CONTROLLERS.shared)
    samplers = {n for n in optuna.samplers.__all__ if n.endswith("Sampler") and not n.startswith("Base")}
    assert samplers == SAMPLERS.keys() | REFUSED.keys()


def test_each_shared_setting_meets_each_network() -> None:
    met: dict[str, set[str]] = {}
    for case in on_three_networks():
        _, settings, network_name, _ = case.values
        for setting in settings.items() if not case.marks else ():
            met.setdefault(str(setting), set()).add(network_name)
    for setting, values in SHARED.items():
        assert all(met[str((setting, value))] == set(NETWORKS) for value in values)


@pytest.mark.parametrize(("name", "settings", "network_name", "repeated"), on_three_networks())
def test_a_whole_search(name: str, settings: dict[str, Any], network_name: str, repeated: bool) -> None:
    domain, importance = domain_of(network_name), importance_of(network_name)
    if refusal_of(name, settings, domain):
        with pytest.raises(ConfigError, match=r"leave trust_region out.* or choose another controller"):
            make_controller(name, domain, seed=0, settings=settings)
        return
    trials, winner = whole_search(domain, name, settings, importance=importance)
    within = name.startswith("optuna") or CONTROLLERS.get(name).keeps_budget
    assert_sound(domain, trials, winner, within=within, n=TRIALS)
    own = [trial.widths for trial in trials if trial.origin == "controller"]
    if "per" in settings:
        assert np.median([spread(domain, widths, settings["per"]) for widths in own]) < 1e-9
        assert max(spread(domain, widths, settings["per"]) for widths in own) < 0.1
    if not repeated:
        return
    again, same = whole_search(domain, name, settings, importance=importance)
    assert [(t.number, t.widths, t.score) for t in again] == [(t.number, t.widths, t.score) for t in trials]
    assert same == winner


BUDGETS: list[dict[str, Any]] = [
    {"peak_memory_mb": "85%", "params": "70%"},
    {"latency_ms": "95%"},
    {"flops": {"min": "40%", "max": "60%"}, "size_mb": "80%"},
]


OPTIONS: list[dict[str, Any]] = [{}, {"blocks": True}, {"divisor": 8}]


def squares() -> list[Any]:
    """Every two of budget, options and network in one case (a Latin square); the whole product is slow."""
    return [
        pytest.param(
            *(constraints, options, network_name),
            id=f"{'+'.join(constraints)}-{options}-{network_name}",
            marks=[] if (i + j + k) % 3 == 0 else [pytest.mark.slow],
        )
        for i, constraints in enumerate(BUDGETS)
        for j, options in enumerate(OPTIONS)
        for k, network_name in enumerate(NETWORKS)
    ]


@pytest.mark.parametrize(("constraints", "options", "network_name"), squares())
def test_coarse_searches_keep_every_kind_of_budget(
    constraints: dict[str, Any], options: dict[str, Any], network_name: str
) -> None:
    metrics = {"latency_ms": {"profile": profile_of(network_name)}}
    domain = BudgetedSpace(space_of(network_name, SpaceOptions(**options)), constraints, metrics=metrics)
    trials, winner = whole_search(domain, "evolution", {"per": "stage", "population": 2}, trials=FEW)
    assert_sound(domain, trials, winner, within=True, n=FEW)
    assert {"flops", "params", "size_mb", "peak_memory_mb", "latency_ms"} == set(trials[0].costs)


@pytest.mark.parametrize(("name", "setting"), [(name, setting) for name in TRIES for setting in TRIES[name]])
def test_a_value_that_is_no_such_setting_is_one_clear_error(name: str, setting: str) -> None:
    kind = get_type_hints(CONTROLLERS.get(name).__init__)[setting]
    numbers = set(get_args(kind) or (kind,)) & {int, float}
    for value in ("wide", float("nan"), -1, True, [2]) if numbers else ("wide", -1):
        with pytest.raises(ConfigError, match=f"{setting}|unknown metric|unknown proxy"):
            make_controller(name, domain_of("transformer"), seed=0, settings={setting: value})


@pytest.mark.parametrize(("name", "settings", "message"), BAD, ids=str)
def test_a_bad_shared_setting_is_one_clear_error(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_controller(name, domain_of("resnet20"), seed=0, settings=settings)


@pytest.mark.parametrize("name", REFUSED)
def test_a_sampler_that_cannot_propose_widths_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[name]):
        make_controller(f"optuna:{name}", domain_of("resnet20"), seed=0, settings={})


def test_a_group_that_stays_whole_does_not_hold_its_stage_back() -> None:
    """In multiples of 16, the first stage of the network is too narrow to be cut."""
    domain = BudgetedSpace(space_of("resnet20", SpaceOptions(divisor=16)), {"flops": "60%"})
    narrow = [index for index, group in enumerate(domain.space.groups) if len(group.choices) == 1]
    assert narrow
    trials, winner = whole_search(domain, "random", {"per": "model"})
    assert_sound(domain, trials, winner, within=True, n=TRIALS)


def test_a_budget_that_one_ratio_cannot_reach_names_the_setting() -> None:
    domain = BudgetedSpace(space_of("resnet20", SpaceOptions(divisor=16)), {"flops": "50%"})
    with pytest.raises(BudgetError, match=r"per model: one ratio for all groups of a model.*or leave per out"):
        make_controller("random", domain, seed=0, settings={"per": "model"})


@pytest.mark.parametrize("name", ["netadapt", "pareto", "random"])
def test_sets_with_few_ratios_in_common_are_searched_in_all_and_rounded(name: str) -> None:
    """Multiples of 8 of 24, 48 and 72 channels: what is written out is a member, also above or below the budget."""
    domain = BudgetedSpace(space_of("mobilenetv2", SpaceOptions(divisor=8)), FLOPS)
    trials, winner = whole_search(domain, name, {"per": "stage"}, trials=30)
    assert_sound(domain, trials, winner, within=name != "netadapt", n=30)
    assert len({trial.widths for trial in trials if trial.origin == "controller"}) > 5


def test_sets_with_no_ratio_in_common_can_be_cut() -> None:
    domain = BudgetedSpace(space_of("mobilenetv2", SpaceOptions(divisor=8)), FLOPS)
    trials, winner = whole_search(domain, "random", {"per": "model"}, trials=FEW)
    assert_sound(domain, trials, winner, within=True, n=FEW)
