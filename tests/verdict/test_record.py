from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autoprune.controllers.base import Trial, TrialState
from autoprune.cost.budget.budget import Budget
from autoprune.errors import RunError
from autoprune.space.serial import to_json
from autoprune.testing.spaces import chain_space
from autoprune.texts import ScoreScale
from autoprune.verdict.record import (
    Arm,
    Comparison,
    CurvePoint,
    FinalTraining,
    RunRecord,
    Verdict,
    read_record,
    write_record,
)

SPACE = chain_space((8, 12))
FULL = Budget(SPACE, {"flops": "50%"}).costs_of(SPACE.full)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
BOUNDS = st.floats(allow_nan=False)


def record(directory: Path, *, low: float = -1.0, high: float = 1.0, score: float = 0.5) -> RunRecord:
    trials = (
        Trial(0, (4, 6), TrialState.COMPLETE, score, FULL, "uniform_all", 7, 0.1, 0),
        Trial(1, (5, 6), TrialState.FAILED, None, FULL, "controller", 8, 0.1, 1, "Traceback …\nValueError: no"),
    )
    comparison = Comparison("fine_tune", "uniform_all", 0.25, low, high, 2, "not distinguishable")
    return RunRecord(
        directory=directory,
        job={"model": {"factory": "resnet20"}},
        provenance={"seconds": {}},
        space=SPACE,
        budget=({"metric": "flops", "upper": 10.0, "full": 20.0, "smallest": 1.0, "percent": 50.0},),
        full_costs=FULL,
        base={"validation": score, "test": None, "epochs": 0, "seconds": 0.0},
        scale=ScoreScale(unit=""),
        test_split=False,
        trials=trials,
        posterior={0: (score, 0.1)},
        arms=(Arm("winner", (4, 6), FULL, None, 2),),
        finals=(FinalTraining("winner", "fine_tune", 0, 3, score, 1.0),),
        verdict=Verdict("A sentence.", "not distinguishable", (comparison,)),
        uniform_curve=(CurvePoint(FULL, score),),
    )


def write(run: RunRecord) -> None:
    files = {"result.json": write_record(run), "run.json": run.provenance, "space.json": to_json(run.space)}
    for name, data in files.items():
        (run.directory / name).write_text(json.dumps(data, allow_nan=False))
    (run.directory / "job.yaml").write_text(yaml.safe_dump(run.job))


@given(low=BOUNDS, high=BOUNDS, score=NUMBERS)
def test_a_record_is_read_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, low: float, high: float, score: float
) -> None:
    low = -math.inf if math.isinf(low) else low
    high = math.inf if math.isinf(high) else high
    run = record(tmp_path_factory.mktemp("run"), low=low, high=high, score=score)
    write(run)
    again = read_record(run.directory)
    for name in ("job", "budget", "full_costs", "base", "trials", "posterior", "arms", "finals", "verdict"):
        assert getattr(again, name) == getattr(run, name), name
    assert again.uniform_curve == run.uniform_curve
    assert again.space.fingerprint == run.space.fingerprint


def test_an_interval_without_bounds_is_null_on_disk(tmp_path: Path) -> None:
    run = record(tmp_path, low=-math.inf, high=math.inf)
    write(run)
    comparison = json.loads((tmp_path / "result.json").read_text())["verdict"]["comparisons"][0]
    assert (comparison["low"], comparison["high"]) == (None, None)


def test_a_run_without_a_verdict_is_read_back(tmp_path: Path) -> None:
    run = record(tmp_path)
    object.__setattr__(run, "verdict", None)
    write(run)
    assert read_record(tmp_path).verdict is None


@pytest.mark.parametrize("name", ["result.json", "run.json", "space.json", "job.yaml"])
@pytest.mark.parametrize("content", [None, "{", "["])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, name: str, content: str | None) -> None:
    write(record(tmp_path))
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(RunError, match=r"cannot be read|is damaged"):
        read_record(tmp_path)


LATER = ("measure", "no_training")
"""What runs of older versions do not hold."""


def test_a_run_of_before_measures_is_read(tmp_path: Path) -> None:
    run = record(tmp_path)
    write(run)
    entries = {key: value for key, value in write_record(run).items() if key not in LATER}
    (tmp_path / "result.json").write_text(json.dumps(entries))
    assert read_record(tmp_path).scale == ScoreScale(unit=run.unit)


def test_a_measure_that_counts_down_is_kept(tmp_path: Path) -> None:
    run = replace(record(tmp_path), scale=ScoreScale("divergence", "nats", higher_is_better=False))
    write(run)
    assert read_record(tmp_path).scale == run.scale


@pytest.mark.parametrize("missing", [key for key in write_record(record(Path())) if key not in LATER])
def test_a_missing_entry_is_one_clear_error(tmp_path: Path, missing: str) -> None:
    run = record(tmp_path)
    write(run)
    entries = write_record(run)
    del entries[missing]
    (tmp_path / "result.json").write_text(json.dumps(entries))
    with pytest.raises(RunError, match=rf"{tmp_path} is damaged .*{missing}"):
        read_record(tmp_path)
