"""One-shot rules through whole runs: whose scores they get, what they have scored, and what the report says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import Perceptron, closeness, perceptron, regression, write_job

from autoprune import sweep
from autoprune.allocation import ALLOCATIONS
from autoprune.config.job import Job, load_job
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import BudgetError, ConfigError, RegistryError
from autoprune.files import read_json
from autoprune.pipeline.fingerprints import job_fingerprint
from autoprune.registry import Part

RULES: list[Any] = [
    "stagewise",
    {"name": "global_threshold", "criterion": "random"},
    {"name": "global_threshold", "criterion": {"name": "l1"}, "settings": {"normalise": "max"}},
    "slimming_quantile",
    "cluster_count",
    "erk",
    "log_width",
    {"name": "sensitivity_tolerance", "settings": {"points": 3}},
    {"name": "knapsack", "settings": {"points": 3}},
    {"name": "dcp_adapt", "settings": {"points": 3}},
]
TABLE = [(16, 12), *((w, 12) for w in (2, 7, 11)), *((16, w) for w in (2, 5, 9))]
LABELS = [
    "stagewise",
    "global_threshold(criterion=random)",
    'global_threshold(criterion=l1, normalise="max")',
    "slimming_quantile",
    "cluster_count",
    "erk",
    "log_width",
    "sensitivity_tolerance(points=3)",
    "knapsack(points=3)",
    "dcp_adapt(points=3)",
]


def never(domain: BudgetedSpace, scores: Any) -> Any:
    raise BudgetError("this rule keeps all channels; raise the limit")


def outside(domain: BudgetedSpace, scores: Any) -> Any:
    return tuple(np.array(domain.space.full) + 1)


CALLS: list[tuple[int, int]] = []
DIES_AT: list[int] = []


def counted(network: Any) -> float:
    """The same function for all runs of this file, as a run may only be resumed with the one that it began with."""
    CALLS.append((network.first.out_features, network.second.out_features))
    if len(CALLS) in DIES_AT:
        raise KeyboardInterrupt
    return closeness(network)


@pytest.fixture(autouse=True)
def _from_none() -> None:
    CALLS.clear()
    DIES_AT.clear()


def run(directory: Path, model: Perceptron, **changes: Any) -> Any:
    given: dict[str, Any] = {"allocations": RULES, "verdict": {"seeds": 0}, "score_func": counted}
    return regression(directory, model, **(given | changes))


@pytest.fixture(scope="module")
def model() -> Perceptron:
    return perceptron()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model: Perceptron) -> Any:
    return run(tmp_path_factory.mktemp("runs") / "run", model)


def test_every_rule_is_scored_first_under_its_own_name(finished: Any) -> None:
    origins = [trial.origin for trial in finished.trials]
    assert origins[:2] == ["uniform_all", "uniform_inner"]
    assert origins[2 : 2 + len(LABELS)] == LABELS
    best = max(trial.score for trial in finished.trials if trial.origin in LABELS)
    searched = [t.score for t in finished.trials if t.score is not None]
    assert max(searched) >= best


def test_a_table_is_measured_once_for_all_rules_that_read_it(finished: Any) -> None:
    facts = read_json(finished.directory / "rules.json")
    assert facts["evaluations"] == 1 + 2 * 3  # the full network, and three widths of two groups
    assert [origin for origin, _ in facts["plan"]][2 : 2 + len(LABELS)] == LABELS


def test_the_report_names_the_rules_and_counts_what_they_had_scored(finished: Any) -> None:
    text = (finished.directory / "report.md").read_text()
    assert "## One-shot rules" in text
    assert all(label in text for label in LABELS)
    assert "the one-shot rules had 7 networks scored beforehand" in text
    page = (finished.directory / "report.html").read_text()
    assert "One-shot rules" in page
    assert "one-shot rules" in page  # in the picture


def test_a_resumed_run_measures_nothing_again(finished: Any, model: Perceptron, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished.directory, copy)
    for name in ("result.json", "report.html", "report.md"):
        (copy / name).unlink()
    again = run(copy, model, resume=True)
    assert [t.widths for t in again.trials] == [t.widths for t in finished.trials]
    assert not CALLS


def test_the_same_widths_come_from_a_run_killed_among_its_tables(
    finished: Any, model: Perceptron, tmp_path: Path
) -> None:
    DIES_AT.append(6)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", model)
    assert not (tmp_path / "run" / "rules.json").exists()
    before = len(CALLS)
    again = run(tmp_path / "run", model, resume=True)
    assert [(t.origin, t.widths) for t in again.trials] == [(t.origin, t.widths) for t in finished.trials]
    first, later = ([c for c in part if c in TABLE] for part in (CALLS[: before - 1], CALLS[before:]))
    assert first
    assert len(later) <= len(TABLE) - len(set(first)) + 1  # the one that died, and the full network in other phases


def test_budgets_of_a_family_share_their_tables(model: Perceptron, tmp_path: Path) -> None:
    rules = [{"name": "knapsack", "settings": {"points": 4}}]
    run(tmp_path / "runs", model, call=sweep, constraints={"flops": ["60%", "40%"]}, allocations=rules)
    places = sorted((tmp_path / "runs").glob("*/rules.json"))
    assert [read_json(place)["evaluations"] for place in places] == [9, 9]
    measured = [c for c in CALLS if (c[0] == 16) != (c[1] == 12)]
    assert 8 <= len(measured) < 16


def test_a_rule_that_cannot_meet_the_budget_is_left_out_and_named(
    model: Perceptron, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ALLOCATIONS._table, "never", Part(f"{__name__}:never", "this test", "Here."))
    result = regression(tmp_path / "run", model, allocations=["never", "erk"], verdict={"seeds": 0})
    assert "never" not in [trial.origin for trial in result.trials]
    assert (
        "The one-shot rule never is missing: this rule keeps all channels; raise the limit."
        in (result.directory / "report.md").read_text()
    )


def test_a_rule_that_gives_no_member_is_refused_before_anything_is_written(
    model: Perceptron, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ALLOCATIONS._table, "outside", Part(f"{__name__}:outside", "this test", "Here."))
    with pytest.raises(ConfigError, match="allocation 'outside' must give a tuple of allowed widths"):
        regression(tmp_path / "run", model, allocations=["outside"])
    assert not list(tmp_path.iterdir())


def test_unknown_criteria_of_rules_are_refused_early(model: Perceptron, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="Did you mean 'l1'"):
        regression(tmp_path / "run", model, allocations=[{"name": "stagewise", "criterion": "l11"}])
    with pytest.raises(ConfigError, match="has no setting 'probe'"):
        regression(tmp_path / "run", model, allocations=[{"name": "knapsack", "settings": {"probe": 1}}])
    assert not list(tmp_path.iterdir())


def test_jobs_without_a_criterion_for_a_rule_are_written_as_before(tmp_path: Path) -> None:
    required: dict[str, Any] = {"model": {"factory": "x"}, "data": {"name": "y"}, "constraints": {"flops": "50%"}}
    given = ["erk", {"name": "global_threshold", "settings": {"normalise": "max"}}]
    job = Job(**required, search={"allocations": given})
    assert job.model_dump(mode="json")["search"]["allocations"] == given
    own = Job(**required, search={"allocations": [{"name": "erk", "criterion": "l1"}]})
    assert own.model_dump(mode="json")["search"]["allocations"] == [{"name": "erk", "settings": {}, "criterion": "l1"}]
    assert Job.model_validate(own.model_dump(mode="json")) == own
    assert job_fingerprint(own) != job_fingerprint(Job(**required, search={"allocations": ["erk"]}))


def test_a_file_of_widths_is_found_beside_the_job_file(tmp_path: Path) -> None:
    (tmp_path / "tas.json").write_text(json.dumps([8, 12]))
    path = write_job(
        tmp_path / "job.yaml", {"search.allocations": [{"name": "published", "settings": {"file": "tas.json"}}]}
    )
    assert load_job(path).search.allocations[0].settings["file"] == str(tmp_path / "tas.json")
