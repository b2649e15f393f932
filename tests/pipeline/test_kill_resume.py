"""A run that is killed again and again ends exactly like one that is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tiny import write_job

QUICK: dict[str, Any] = {"training.epochs": 2, "search": {"trials": 6, "rescore": 2}}
LONG: dict[str, Any] = {**QUICK, "model": {"factory": "resnet20", "arguments": {"in_channels": 1, "width": 0.25}}}
"""Long enough to be met at any moment."""

HELPERS = Path(__file__).parents[1] / "helpers"
PATIENCE = 120.0


@dataclass(frozen=True)
class Moment:
    """When to kill: some milliseconds after this much of the run is on disk."""

    name: str
    reached: Callable[[Path], bool]
    then_ms: int = 0


def exists(name: str) -> Callable[[Path], bool]:
    return lambda run: (run / name).exists()


def entries(study: str, n: int) -> Callable[[Path], bool]:
    """The journal holds `n` trials of a study, ended or not."""

    def reached(run: Path) -> bool:
        names, count = [], 0
        for line in journal(run):
            if line["op_code"] == 0:
                names.append(line["study_name"].partition("/")[2])
            count += line["op_code"] == 4 and names[line["study_id"]] == study
        return count >= n

    return reached


def journal(run: Path) -> Iterator[dict[str, Any]]:
    """Whole lines of the journal; creating a study again, as each resumption does, repeats its line."""
    path, seen = run / "journal.log", set()
    for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
        entry = json.loads(line) if line.endswith("\n") else {"op_code": -1}
        if entry["op_code"] != 0 or entry["study_name"] not in seen:
            seen.add(entry.get("study_name"))
            yield entry


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "autoprune.cli.main", *arguments, "--progress", "silent"]
    given = os.environ | {"PYTHONPATH": os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(command, cwd=folder, env=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def undisturbed(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    process = start(folder, "search", str(write_job(folder / "job.yaml", job)), "--run-dir", "run")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert out.startswith("At 50 % of the FLOPs")
    return outcome(folder / "run")


def disturbed(folder: Path, job: dict[str, Any], moments: list[Moment]) -> tuple[dict[str, Any], list[str]]:
    """The outcome, and at which of the moments the run was really killed."""
    run, hit = folder / "run", []
    arguments: tuple[str, ...] = ("search", str(write_job(folder / "job.yaml", job)), "--run-dir", "run")
    for moment in moments:
        process = start(folder, *arguments)
        if _reached(moment, run, process):
            time.sleep(moment.then_ms / 1000)
            process.kill()
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode in (-9, 0), err
        hit += [moment.name] * (process.returncode == -9)
        if (run / "run.json").exists():
            arguments = ("resume", "run")
    process = start(folder, *arguments)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return outcome(run), hit


def _reached(moment: Moment, run: Path, process: subprocess.Popen[str]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if moment.reached(run):
            return True
        time.sleep(0.002)
    return False


def outcome(run: Path) -> dict[str, Any]:
    """All that a run concludes, without its times."""
    record: dict[str, Any] = json.loads((run / "result.json").read_text())
    for timed in (*record["trials"], *record["finals"], record["base"]):
        del timed["seconds"]
    weights = {path.name: path.read_bytes() for path in run.rglob("*.safetensors")}
    return record | weights | {"architecture": (run / "export" / "architecture.yaml").read_text()}


def assert_same(killed: dict[str, Any], alone: dict[str, Any]) -> None:
    for part, value in alone.items():
        assert killed[part] == value, part


@pytest.fixture(scope="module")
def long_alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return undisturbed(tmp_path_factory.mktemp("alone"), LONG)


@pytest.mark.slow
def test_a_run_killed_in_search_and_finals_ends_as_if_left_alone(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    moments = [
        Moment("search", entries("search", 4), 3),
        Moment("finals", entries("final trainings", 2), 40),
    ]
    killed, hit = disturbed(tmp_path, QUICK, moments)
    assert hit == ["search", "finals"]
    assert_same(killed, undisturbed(tmp_path_factory.mktemp("alone"), QUICK))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_killed_at_ten_random_moments_ends_as_if_left_alone(
    long_alone: dict[str, Any], tmp_path: Path, seed: int
) -> None:
    rng = Random(seed)
    steps = [
        ("start", exists(".lock"), 30),
        ("base network", exists("run.json"), 800),
        ("base network", exists("base.json"), 20),
        ("search", entries("search", rng.randint(1, 4)), 200),
        ("search", entries("search", rng.randint(5, 9)), 200),
        ("search", entries("search", rng.randint(10, 11)), 100),
        ("re-scoring", entries("re-scoring", rng.randint(1, 2)), 100),
        ("uniform curve", entries("uniform curve", rng.randint(1, 2)), 100),
        ("finals", entries("final trainings", rng.randint(1, 3)), 400),
        ("finals", entries("final trainings", rng.randint(4, 6)), 400),
        ("report", exists("export/architecture.yaml"), 100),
    ]
    moments = [Moment(name, reached, rng.randint(0, longest)) for name, reached, longest in steps]
    killed, hit = disturbed(tmp_path, LONG, moments)
    assert len(hit) >= 10, hit
    assert_same(killed, long_alone)
