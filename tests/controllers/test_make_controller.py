from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import optuna
import pytest

from autoprune.controllers import make_controller
from autoprune.controllers.base import Trial, TrialState
from autoprune.controllers.optuna_sampler import OptunaSampler
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError, RegistryError
from autoprune.space.groups import Widths
from autoprune.testing.spaces import chain_space


def roomy() -> BudgetedSpace:
    return BudgetedSpace(chain_space((16, 24, 32, 24)), {"flops": "50%"})


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("surogate", {}, RegistryError, "Did you mean 'surrogate'"),
        (
            "evolution",
            {"populaton": 3},
            ConfigError,
            "'evolution' has no setting 'populaton'.*Did you mean 'population'",
        ),
        ("random", {"n": 3}, ConfigError, "has no settings"),
        ("evolution", {"sample": 99}, ConfigError, "sample must be"),
        ("evolution", {"mutate": 2.0}, ConfigError, "mutate must be"),
        ("surrogate", {"startup": 0}, ConfigError, "startup must be"),
        ("surrogate", {"seed": 1}, ConfigError, "no setting 'seed'"),
        ("optuna:TPESamler", {}, RegistryError, "Did you mean 'TPESampler'"),
        ("optuna:TPESampler", {"n_startup": 3}, ConfigError, "Did you mean 'n_startup_trials'"),
        ("optuna:TPESampler", {"sampler": 3}, ConfigError, "no setting 'sampler'"),
        ("optuna:GridSampler", {}, ConfigError, "needs the setting 'search_space'"),
        ("optuna:no_such_package:Sampler", {}, RegistryError, "no_such_package"),
        ("optuna:random:Random", {}, ConfigError, "no setting 'seed'"),
    ],
)
def test_wrong_names_and_settings_are_refused_by_name(
    name: str, settings: Mapping[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_controller(name, roomy(), seed=0, settings=settings)


def run(name: str, rounds: int = 12) -> list[Widths]:
    controller = make_controller(name, roomy(), seed=3, settings={})
    asked: list[Widths] = []
    for _ in range(rounds):
        batch = controller.ask(3)
        controller.tell(
            [Trial(len(asked) + i, w, TrialState.COMPLETE, float(w[0] - w[3])) for i, w in enumerate(batch)]
        )
        asked += batch
    return asked


@pytest.mark.parametrize(
    "sampler", ["TPESampler", "RandomSampler", "CmaEsSampler", "NSGAIISampler", "NSGAIIISampler", "QMCSampler"]
)
def test_samplers_of_optuna_are_replayable(sampler: str) -> None:
    assert run(f"optuna:{sampler}") == run(f"optuna:{sampler}")


@pytest.mark.slow
def test_optunas_gaussian_process_is_replayable() -> None:
    assert run("optuna:GPSampler", 6) == run("optuna:GPSampler", 6)


def test_a_class_of_another_package_is_found_by_its_path() -> None:
    assert run("optuna:optuna.samplers:TPESampler") == run("optuna:TPESampler")


def test_the_sampler_learns_what_was_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The study's finished trials are the told widths, own ones with the sampler's notes, foreign ones too."""
    studies: list[optuna.Study] = []
    create = optuna.create_study

    def recorded(**settings: object) -> optuna.Study:
        studies.append(create(**settings))  # type: ignore[arg-type]
        return studies[-1]

    monkeypatch.setattr(optuna, "create_study", recorded)
    domain = roomy()
    controller = OptunaSampler(domain, seed=0, sampler="NSGAIISampler")
    own = controller.ask(4)
    told = [*own, domain.uniform()]
    controller.tell([Trial(i, w, TrialState.COMPLETE, float(i)) for i, w in enumerate(told)])
    complete = [t for t in studies[0].trials if t.state is optuna.trial.TrialState.COMPLETE]
    widths = [tuple(g.choices[t.params[g.name]] for g in domain.space.groups) for t in complete]
    assert widths == told
    assert [t.value for t in complete] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert all(t.system_attrs for t in complete[:4])  # NSGA-II needs the generation of its own trials
    assert not any(t.state is optuna.trial.TrialState.RUNNING for t in studies[0].trials)


def test_optunas_log_is_silent_and_stays_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    optuna.logging.enable_propagation()
    before = optuna.logging.get_verbosity()
    try:
        with caplog.at_level(logging.INFO):
            run("optuna:CmaEsSampler", 3)
    finally:
        optuna.logging.disable_propagation()
    assert not [record for record in caplog.records if record.name.startswith("optuna")]
    assert optuna.logging.get_verbosity() == before


def test_the_told_best_is_followed() -> None:
    gain = [w[0] - w[3] for w in run("optuna:TPESampler", 20)]
    assert np.mean(gain[-20:]) > np.mean(gain[:10]) + 5
