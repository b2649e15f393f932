"""Runs under a latency budget, on a machine whose times are known."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_hardware
import numpy as np
import pytest
import torch
from fake_hardware import known_times
from tiny import Convolutions, perceptron, regression, write_job

import autoprune
from autoprune.cost.flops import flops
from autoprune.cost.latency.device_profile import Conditions, DeviceProfile
from autoprune.cost.latency.profile_files import write_profile
from autoprune.errors import ConfigError, RunError
from autoprune.evaluators.inherited import Inherited
from autoprune.latency.profile import build_profile
from autoprune.pipeline import driver
from autoprune.pipeline.family import Family, ScoreCache
from autoprune.pipeline.phases.flops_search import FOLDER, by_flops_too
from autoprune.space.groups import Widths
from autoprune.trials.ledger import Notebook, open_storage
from autoprune.verdict.record import read_record

__all__ = ["known_times"]

LIMIT = {"latency_ms": "60%"}
SMALL = {"seeds": 0, "fine_tune_epochs": 1, "random_candidates": 2}


@pytest.fixture
def profile(known_times: None, monkeypatch: pytest.MonkeyPatch) -> DeviceProfile:
    """Of a perceptron's kernels, on a slow machine: a microsecond for each weight."""
    monkeypatch.setattr(fake_hardware, "layer_ms", lambda weight: 1e-3 * math.prod(weight))
    model, example = perceptron(), torch.zeros(1, 4)
    space = autoprune.trace(model, example, verify=False)
    return build_profile(space.search_space, lambda w: space.slice(model, w), example, Conditions(), networks=10)


def limited(folder: Path, profile: object, **changes: Any) -> autoprune.SearchResult:
    given: dict[str, Any] = {"constraints": LIMIT, "metrics": {"latency_ms": {"profile": profile}}}
    return regression(folder, **(given | changes))


def saved(profile: DeviceProfile, folder: Path) -> Path:
    path = folder / "cpu.json"
    write_profile(profile, path)
    return path


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[Widths, bool]]:
    """How often networks are scored, and whether on all data."""
    found: Counter[tuple[Widths, bool]] = Counter()
    real = Inherited.evaluate

    def evaluate(self: Inherited, widths: Widths, *args: Any, full: bool = False, **others: Any) -> float:
        found[widths, full] += 1
        return real(self, widths, *args, full=full, **others)

    monkeypatch.setattr(Inherited, "evaluate", evaluate)
    return found


def test_the_winner_is_shown_beside_the_search_by_flops(
    tmp_path: Path, profile: DeviceProfile, counts: Counter[tuple[Widths, bool]]
) -> None:
    result = limited(tmp_path / "run", saved(profile, tmp_path))
    assert set(counts.values()) == {1}  # what one search has scored the other has not
    record = result.record
    beside = read_record(tmp_path / "run" / "flops_search")
    rival = next(arm for arm in record.arms if arm.name == "flops_search")
    assert rival.widths == beside.winner.widths
    uniform = next(arm for arm in record.arms if arm.name == "uniform_all")
    cost = flops(record.space)
    limits = {limit["metric"]: limit["upper"] for limit in beside.budget}
    assert limits == {"flops": float(cost(np.array([uniform.widths]))[0])}
    assert sum(t.origin not in ("uniform_all",) for t in beside.trials) >= 4
    assert {f.arm for f in record.finals} >= {"winner", "flops_search"}
    assert record.latency is not None
    compared = record.latency["compared"]
    assert list(compared) == [*(arm.name for arm in record.arms), "unpruned"]
    assert compared["winner"]["latency"]["ms"] <= record.latency["limit"]
    assert compared["flops_search"]["widths"] == list(rival.widths)
    text = (tmp_path / "run" / "report.md").read_text()
    assert "## Measured latency" in text
    assert "| winner (searched by latency) |" in text
    assert "| flops_search (searched by FLOPs) |" in text
    assert "Searched by latency minus searched by FLOPs, fine_tune: " in text
    assert "1 thread, batch 1, float32" in text
    assert "Measured latency" in (tmp_path / "run" / "report.html").read_text()


def test_scores_that_count_in_one_search_alone_do_not_stand_beside_those_of_the_other(
    tmp_path: Path, profile: DeviceProfile, counts: Counter[tuple[Widths, bool]]
) -> None:
    blend = {"name": "blend", "settings": {"parts": ["inherited", "zero_cost"]}}
    record = limited(tmp_path / "run", saved(profile, tmp_path), evaluator=blend).record
    beside = read_record(tmp_path / "run" / "flops_search")
    assert beside.winner.search_score is not None
    assert {arm.name for arm in record.arms if arm.search_score is None} == {"flops_search"}
    assert max(counts.values()) > 1, "each search has scored what it needs"


def test_a_killed_run_goes_on_as_if_it_had_not_been(
    tmp_path: Path, profile: DeviceProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, quick = saved(profile, tmp_path), {"verdict": {**SMALL, "seeds": 1, "protocols": ["fine_tune"]}}
    whole = limited(tmp_path / "whole", path, **quick)
    calls, real = list[Widths](), Inherited.evaluate

    def evaluate(self: Inherited, widths: Widths, *args: Any, **others: Any) -> float:
        if (tmp_path / "run" / "flops_search" / "run.json").is_file() and widths not in calls:
            calls.append(widths)
            raise KeyboardInterrupt
        return real(self, widths, *args, **others)

    monkeypatch.setattr(Inherited, "evaluate", evaluate)
    with pytest.raises(KeyboardInterrupt):
        limited(tmp_path / "run", path, **quick)
    assert not (tmp_path / "run" / "flops_search" / "result.json").exists()
    monkeypatch.setattr(Inherited, "evaluate", real)
    resumed = limited(tmp_path / "run", path, resume=True, **quick)
    assert [arm.widths for arm in resumed.record.arms] == [arm.widths for arm in whole.record.arms]
    assert [f.score for f in resumed.record.finals] == [f.score for f in whole.record.finals]
    assert limited(tmp_path / "run", path, resume=True, **quick).record.latency == resumed.record.latency


def test_without_it_there_is_one_search_and_still_a_measurement(tmp_path: Path, profile: DeviceProfile) -> None:
    verdict = {**SMALL, "flops_search": False}
    result = limited(tmp_path / "run", saved(profile, tmp_path), verdict=verdict)
    assert not (tmp_path / "run" / "flops_search").exists()
    assert result.record.latency is not None
    assert list(result.record.latency["compared"])[:2] == ["winner", "uniform_all"]
    assert "## Measured latency" in (tmp_path / "run" / "report.md").read_text()


def test_one_that_is_switched_on_later_has_every_score_of_the_first(
    tmp_path: Path, profile: DeviceProfile, counts: Counter[tuple[Widths, bool]]
) -> None:
    path = saved(profile, tmp_path)
    limited(tmp_path / "run", path, verdict={**SMALL, "flops_search": False})
    alone = dict(counts)
    limited(tmp_path / "run", path, verdict=SMALL, resume=True)
    beside = read_record(tmp_path / "run" / FOLDER)
    assert {(trial.widths, False) for trial in beside.trials} & alone.keys()
    assert {key: counts[key] for key in alone} == alone
    assert {counts[key] for key in counts.keys() - alone.keys()} <= {1}
    assert "base network and every score" in (tmp_path / "run" / "report.md").read_text()


def test_what_the_verdict_says_of_latency_is_told_to_change_nothing(
    tmp_path: Path, profile: DeviceProfile, capfd: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {"verdict": {**SMALL, "flops_search": False, "latency": {"dtype": "none"}}}
    path, run = saved(profile, tmp_path), tmp_path / "run"
    record = limited(run, path, progress="plain", **given).record
    assert "verdict: latency changes nothing here: latency_ms is limited" in " ".join(capfd.readouterr().err.split())
    assert record.latency is not None
    assert record.latency["compared"]["winner"]["latency"]["conditions"]["dtype"] == "float32"
    given["verdict"]["latency"] = False
    with pytest.raises(ConfigError, match=r"verdict\.latency cannot be changed: latency_ms is limited"):
        limited(run, path, resume=True, **given)
    assert (run / "result.json").is_file()
    assert not (run / "earlier").exists()


def test_other_limits_hold_for_both_searches(tmp_path: Path, profile: DeviceProfile) -> None:
    constraints = {**LIMIT, "params": "60%", "flops": {"min": "10%", "max": "50%"}}
    limited(tmp_path / "run", saved(profile, tmp_path), constraints=constraints, verdict=SMALL)
    beside = read_record(tmp_path / "run" / "flops_search")
    limits = {limit["metric"]: limit for limit in beside.budget}
    assert set(limits) == {"params", "flops"}
    assert limits["params"]["percent"] == pytest.approx(60)
    assert limits["flops"]["lower"] == pytest.approx(0.1 * limits["flops"]["full"])
    assert limits["flops"]["percent"] <= 50


def test_a_profile_of_another_machine_gives_predictions_only(tmp_path: Path, profile: DeviceProfile) -> None:
    metrics = {"latency_ms": {"profile": replace(profile, machine="Abacus"), "elsewhere": True}}
    result = limited(tmp_path / "run", None, metrics=metrics, verdict=SMALL)
    assert result.record.latency is None
    assert not (tmp_path / "run" / "flops_search").exists()


def test_resuming_with_another_profile_is_refused_by_name(tmp_path: Path, profile: DeviceProfile) -> None:
    path = saved(profile, tmp_path)
    verdict = {**SMALL, "flops_search": False}
    limited(tmp_path / "run", path, verdict=verdict)
    rewritten = json.dumps(json.loads(path.read_text()))  # the same content in other white space
    path.write_text(rewritten)
    limited(tmp_path / "run", path, verdict=verdict, resume=True)
    changed = replace(profile, coefficients=tuple(1.01 * c for c in profile.coefficients))
    write_profile(changed, path)
    with pytest.raises(RunError, match=r"cannot be resumed: device profile of the run and of this call differ"):
        limited(tmp_path / "run", path, verdict=verdict, resume=True)


def test_a_profile_is_found_beside_the_job_file(
    tmp_path: Path, known_times: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, example = Convolutions(), torch.zeros(1, 1, 16, 16)
    space = autoprune.trace(model, example, verify=False)
    made = build_profile(space.search_space, lambda w: space.slice(model, w), example, Conditions(), networks=0)
    folder = tmp_path / "jobs"
    folder.mkdir()
    saved(made, folder)
    given = {"metrics": {"latency_ms": {"profile": "cpu.json"}}, "verdict.seeds": 0, "verdict.flops_search": False}
    job = write_job(folder / "job.yaml", given)
    monkeypatch.chdir(tmp_path)
    (record,) = driver.start_job(autoprune.config.job.load_job(job), tmp_path / "run", progress="silent")
    assert record.winner.costs["latency_ms"] > 0
    (again,) = driver.resume_job(tmp_path / "run", progress="silent")
    assert again.winner == record.winner
    (folder / "cpu.json").unlink()
    with pytest.raises(ConfigError, match=r"device profile .*cpu\.json cannot be read"):
        driver.resume_job(tmp_path / "run", progress="silent")


def test_searches_by_flops_hand_on_what_they_learned_among_themselves(tmp_path: Path) -> None:
    """The comparison is to do without a profile: a search by latency hands nothing to it."""
    cache = ScoreCache(Notebook(open_storage(None, tmp_path / "scores.log"), "scores"))
    family = Family(tmp_path / "1", cache, before=tmp_path / "1")
    for place, learned in ((tmp_path / "1", [1.0]), (tmp_path / "1" / FOLDER, [2.0])):
        place.mkdir()
        assert by_flops_too(family).handed_on is None, "there may have been no such search"
        (place / "run.json").write_text(json.dumps({"learned": learned}))
    assert family.handed_on == [1.0]
    assert by_flops_too(family).handed_on == [2.0]
    assert by_flops_too(family).scores is cache
    assert by_flops_too(Family(tmp_path / "1", cache)).handed_on is None
