"""A job with several budgets: one family that shares trace, base network and scores, and resumes."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny import perceptron, regression, write_job

import autoprune
from autoprune.config.job import Job, load_job
from autoprune.errors import BudgetError, ConfigError, RunError
from autoprune.evaluators.inherited import Inherited
from autoprune.files import read_json
from autoprune.pipeline import beginning, driver, prepare
from autoprune.pipeline.phases import base_network
from autoprune.space.groups import Widths
from autoprune.verdict.record import RunRecord

BUDGETS = ["60%", "40%", {"min": "20%", "max": "25%"}]
NAMES = ["1-flops-60", "2-flops-40", "3-flops-20-25"]


def job_of(folder: Path, **changes: Any) -> Job:
    return load_job(write_job(folder / "job.yaml", {"constraints.flops": BUDGETS, "verdict.seeds": 0, **changes}))


def outcome(record: RunRecord) -> dict[str, Any]:
    """All of result.json but the times."""
    found = json.loads((record.directory / "result.json").read_text())
    for timed in (*found["trials"], found["base"]):
        del timed["seconds"]
    return dict(found)


def swept(run_dir: Path | None = None, **changes: Any) -> tuple[autoprune.SearchResult, ...]:
    return regression(run_dir, call=autoprune.sweep, **changes)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[Widths, bool]]:
    """How often each width vector was really scored."""
    counts: Counter[tuple[Widths, bool]] = Counter()
    real = Inherited.evaluate

    def evaluate(self: Inherited, widths: Widths, *, seed: int, full: bool = False) -> float:
        counts[widths, full] += 1
        return real(self, widths, seed=seed, full=full)

    monkeypatch.setattr(Inherited, "evaluate", evaluate)
    return counts


def test_a_family_shares_trace_base_network_and_scores(
    tmp_path: Path, counted: Counter[tuple[Widths, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()
    for module, name in ((prepare, "trace"), (prepare, "verify")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, _r=real, _n=name, **k: (calls.update([_n]), _r(*a, **k))[1])
    trained = base_network._train
    monkeypatch.setattr(base_network, "_train", lambda *run: (calls.update(["base"]), trained(*run))[1])
    records = driver.start_job(job_of(tmp_path), tmp_path / "family", progress="silent")
    assert calls == {"trace": 1, "verify": 1, "base": 1}
    assert set(counted.values()) == {1}
    assert [record.directory.name for record in records] == NAMES
    for record, (low, high) in zip(records, [(0.0, 60), (0.0, 40), (20, 25)], strict=True):
        shares = [100 * trial.costs["flops"] / record.full_costs["flops"] for trial in record.trials]
        assert low <= min(shares) <= max(shares) <= high
    assert len({json.dumps(record.base["validation"]) for record in records}) == 1


def test_the_same_budget_again_scores_nothing_anew(tmp_path: Path, counted: Counter[tuple[Widths, bool]]) -> None:
    once = job_of(tmp_path, constraints={"flops": "50%"})
    driver.start_job(once, tmp_path / "once", progress="silent")
    needed = len(counted)
    counted.clear()
    twice = job_of(tmp_path, constraints={"flops": ["50%", "50%"]})
    first, second = driver.start_job(twice, tmp_path / "twice", progress="silent")
    assert sum(counted.values()) == needed
    assert [t.score for t in first.trials] == [t.score for t in second.trials]


@pytest.mark.parametrize(
    "settings", [{}, *(pytest.param(s, marks=pytest.mark.slow) for s in ({"trust_region": 1.0}, {"per": "stage"}))]
)
def test_one_learned_ranking_serves_every_budget(settings: dict[str, Any], tmp_path: Path) -> None:
    """The second search of `legr` begins with the best map of the first, also when it is resumed."""
    changes = {"search.controller": {"name": "legr", "settings": settings}, "search.trials": 8}
    two, one = ({"constraints": {"flops": limits}} for limits in (["70%", "50%"], "50%"))
    first, second = driver.start_job(job_of(tmp_path, **changes, **two), tmp_path / "family", progress="silent")
    learned = read_json(first.directory / "run.json")["learned"]
    assert read_json(first.directory / "run.json")["begun_with"] is None
    assert learned == read_json(second.directory / "run.json")["begun_with"]
    assert np.array(learned).shape[0] == 2
    (fresh,) = driver.start_job(job_of(tmp_path, **changes, **one), tmp_path / "alone", progress="silent")
    proposed = [[t.widths for t in run.trials if t.origin == "controller"] for run in (second, fresh)]
    assert proposed[0] != proposed[1]
    (second.directory / "result.json").unlink()
    *_, again = driver.resume_job(tmp_path / "family", progress="silent")
    assert [t.widths for t in again.trials] == [t.widths for t in second.trials]


@pytest.mark.parametrize("after", [2, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 3))])
def test_a_family_that_was_killed_while_a_run_began_goes_on(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first time that versions are looked up is for the family, then for each run."""
    changes = {"search.controller": {"name": "legr"}, "constraints": {"flops": ["70%", "50%"]}}
    whole = driver.start_job(job_of(tmp_path, **changes), tmp_path / "whole", progress="silent")
    real, calls = beginning.provenance, list[int]()

    def provenance() -> dict[str, Any]:
        calls.append(len(calls))
        if len(calls) == after:
            raise KeyboardInterrupt
        return real()

    monkeypatch.setattr(beginning, "provenance", provenance)
    with pytest.raises(KeyboardInterrupt):
        driver.start_job(job_of(tmp_path, **changes), tmp_path / "part", progress="silent")
    again = driver.resume_job if after > 1 else partial(driver.start_job, job_of(tmp_path, **changes))
    records = again(tmp_path / "part", progress="silent")
    assert [[t.widths for t in run.trials] for run in records] == [[t.widths for t in run.trials] for run in whole]


def test_the_overview_has_a_row_for_each_budget(tmp_path: Path) -> None:
    driver.start_job(job_of(tmp_path), tmp_path / "family", progress="silent")
    text = (tmp_path / "family" / "overview.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "flops ≤" in line]
    assert [row.split("|")[1].strip() for row in rows] == [
        "flops ≤ 60.0 %",
        "flops ≤ 40.0 %",
        "20.0 % ≤ flops ≤ 25.0 %",
    ]
    assert all(f"({name}/report.html)" in row for name, row in zip(NAMES, rows, strict=True))
    (tmp_path / "family" / "overview.md").unlink()
    assert len(driver.write_all_reports(tmp_path / "family")) == 3
    assert (tmp_path / "family" / "overview.md").read_text() == text


@pytest.mark.parametrize("after", [9, *(pytest.param(number, marks=pytest.mark.slow) for number in (3, 14))])
def test_a_killed_family_goes_on_as_if_it_had_not_been(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = driver.start_job(job_of(tmp_path), tmp_path / "whole", progress="silent")
    real, calls = Inherited.evaluate, list[Widths]()

    def evaluate(self: Inherited, widths: Widths, *, seed: int, full: bool = False) -> float:
        calls.append(widths)
        if len(calls) == after:
            raise KeyboardInterrupt
        return real(self, widths, seed=seed, full=full)

    monkeypatch.setattr(Inherited, "evaluate", evaluate)
    with pytest.raises(KeyboardInterrupt):
        driver.start_job(job_of(tmp_path), tmp_path / "family", progress="silent")
    resumed = driver.resume_job(tmp_path / "family", progress="silent")
    assert [outcome(record) for record in resumed] == [outcome(record) for record in whole]
    calls.clear()
    assert [outcome(r) for r in driver.resume_job(tmp_path / "family", progress="silent")] == [
        outcome(r) for r in whole
    ]
    assert not calls


def test_one_budget_that_cannot_be_kept_stops_the_family_before_anything_is_written(tmp_path: Path) -> None:
    job = job_of(tmp_path, **{"constraints.flops": ["50%", "0.01%"]})
    with pytest.raises(
        BudgetError, match=r"cannot be reached: the smallest network of this space costs .* the largest"
    ):
        driver.start_job(job, tmp_path / "family", progress="silent")
    assert not (tmp_path / "family").exists()


def test_a_family_is_not_exported_and_not_resumed_with_another_job(tmp_path: Path) -> None:
    folder = tmp_path / "family"
    driver.start_job(job_of(tmp_path, **{"constraints.flops": ["60%", "40%"]}), folder, progress="silent")
    with pytest.raises(RunError, match=r"a run for each of 2 budgets; export one of them: .*1-flops-60"):
        driver.export_run(folder, tmp_path / "out")
    assert driver.export_run(folder / "1-flops-60", tmp_path / "out").is_dir()
    text = yaml.safe_load((folder / "job.yaml").read_text())
    (folder / "job.yaml").write_text(yaml.safe_dump({**text, "seed": 7}))
    with pytest.raises(RunError, match=r"its job\.yaml is not that of the start"):
        driver.resume_job(folder, progress="silent")


def test_lists_go_together_and_single_limits_hold_for_all(tmp_path: Path) -> None:
    job = job_of(tmp_path, constraints={"flops": ["60%", "40%"], "params": [5000, "30%"], "size_mb": "90%"})
    assert [one.constraints for one in job.family] == [
        {"flops": "60%", "params": 5000.0, "size_mb": "90%"},
        {"flops": "40%", "params": "30%", "size_mb": "90%"},
    ]
    assert job_of(tmp_path, constraints={"flops": "50%"}).family[0].constraints == {"flops": "50%"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["50%"], r"a list of budgets has 2 to 100; a range is \{min: …, max: …\}"),
        ({"min": "40%"}, r"a range needs a max"),
        ({"mim": "40%", "max": "50%"}, r"unknown key 'mim'\. Did you mean 'min'\? A range has min and max"),
        ([["50%", "40%"], "30%"], r"a limit must be a text such as \"50%\" or a number, a range"),
        (True, r"a limit must be a text"),
    ],
)
def test_what_is_no_budget_is_refused(given: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        job_of(tmp_path, **{"constraints.flops": given})


def test_lists_of_different_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be equally long \(2 for flops, 3 for params\)"):
        job_of(tmp_path, constraints={"flops": ["60%", "40%"], "params": ["60%", "50%", "40%"]})


def test_a_list_of_budgets_gives_python_a_result_for_each(
    tmp_path: Path, counted: Counter[tuple[Widths, bool]]
) -> None:
    given: dict[str, Any] = {"constraints": {"flops": ["60%", "40%"]}, "verdict": {"seeds": 0, "random_candidates": 2}}
    results = swept(tmp_path / "family", **given)
    assert isinstance(results, tuple)
    assert [result.directory.name for result in results] == ["1-flops-60", "2-flops-40"]
    for result, share in zip(results, (0.6, 0.4), strict=True):
        assert result.record.winner.costs["flops"] <= share * result.record.full_costs["flops"]
        assert result.model(torch.zeros(2, 4)).shape == (2, 1)
    assert (tmp_path / "family" / "overview.md").is_file()
    scored = dict(counted)
    again = swept(tmp_path / "family", resume=True, **given)
    assert [outcome(r.record) for r in again] == [outcome(r.record) for r in results]
    assert dict(counted) == scored
    with pytest.raises(RunError, match=r"is in use already"):
        swept(tmp_path / "family", **given)
    with pytest.raises(RunError, match=r"started from Python with a model object"):
        autoprune.resume(tmp_path / "family")


def test_a_family_from_python_finds_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, _ = swept(constraints={"flops": ["60%", "40%"]}, verdict={"seeds": 0, "random_candidates": 2})
    assert first.directory == tmp_path / "runs/search/1-flops-60"


def test_one_run_is_not_a_family(tmp_path: Path) -> None:
    driver.start_job(job_of(tmp_path, **{"constraints.flops": ["60%", "40%"]}), tmp_path / "family", progress="silent")
    with pytest.raises(ConfigError, match=r"family of 2 searches, not one run: `autoprune resume` goes on with it"):
        autoprune.resume(tmp_path / "family")


ONE = {"verdict": {"seeds": 0, "random_candidates": 2}, "trials": 2}


def test_a_sweep_of_one_budget_is_the_search_of_it(tmp_path: Path) -> None:
    model = perceptron()
    alone = regression(tmp_path / "alone", model, **ONE)
    (swept_alone,) = regression(tmp_path / "sweep", model, call=autoprune.sweep, **ONE)
    assert outcome(swept_alone.record) == outcome(alone.record)
    files, expected = ({path.name for path in (tmp_path / name).iterdir()} for name in ("sweep", "alone"))
    assert files == expected


def test_lists_of_limits_in_a_search_still_give_a_tuple_and_say_what_to_call(tmp_path: Path) -> None:
    limits = {"constraints": {"flops": ["60%", "40%"]}}
    with pytest.warns(FutureWarning, match=r"lists of limits has moved .*: use autoprune\.sweep") as caught:
        results: Any = regression(tmp_path / "run", **ONE, **limits)
    assert [type(result) for result in results] == [autoprune.SearchResult] * 2
    assert Path(caught[0].filename).name == "tiny.py", "the line of the caller is blamed"


def test_search_and_sweep_show_one_list_of_arguments_with_defaults_and_docs() -> None:
    one, several = map(inspect.signature, (autoprune.search, autoprune.sweep))
    assert list(one.parameters.items()) == list(several.parameters.items())
    assert (one.parameters["trials"].default, one.parameters["engine"].default) == (100, "local")
    assert [name for name, p in one.parameters.items() if p.kind is not p.KEYWORD_ONLY] == ["model", "example_input"]
    for name in one.parameters:
        assert f"\n    {name}: " in str(inspect.getdoc(autoprune.search)), name
        assert f"\n    {name}: " in str(inspect.getdoc(autoprune.sweep)), name
    slices = inspect.signature(autoprune.Space.slice).parameters["criterion"].default
    assert one.parameters["criterion"].default == slices == Job.model_fields["search"].default.criterion.name


def test_an_argument_that_does_not_exist_is_named_with_the_function(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"search\(\) got an unexpected keyword argument 'trails'"):
        regression(tmp_path / "run", trails=3)
