"""What a run tells about how to go on with it is a call or a command that does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tiny import perceptron, regression, write_job

import autoprune
from autoprune.config.job import load_job
from autoprune.errors import RunError
from autoprune.pipeline import driver


def hint(output: str) -> str:
    (found,) = re.findall(r"if it is stopped, `([^`]*)` goes on", " ".join(output.split()))
    return str(found)


OPTIONS: dict[str, Any] = {"verdict": {"seeds": 0}, "train_func": None, "trials": 2, "progress": "plain"}


def test_a_search_from_python_is_resumed_by_the_call_that_it_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = regression(tmp_path / "run", **OPTIONS)
    told = hint("".join(capsys.readouterr()))
    assert told.startswith("autoprune.search(…, ")
    (tmp_path / "run" / "result.json").unlink()
    keywords: dict[str, Any] = eval(told.removeprefix("autoprune.search(…, ").join(("dict(", "")))
    assert regression(keywords.pop("run_dir"), **keywords, **OPTIONS).widths == first.widths


def test_a_sweep_from_python_is_resumed_by_the_call_that_it_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    regression(tmp_path / "family", call=autoprune.sweep, constraints={"flops": ["60%", "40%"]}, **OPTIONS)
    found = set(re.findall(r"stopped, `([^`]*)` goes on", " ".join("".join(capsys.readouterr()).split())))
    assert found == {f"autoprune.sweep(…, run_dir={str(tmp_path / 'family')!r}, resume=True)"}


def test_a_directory_in_use_says_the_call_too(tmp_path: Path) -> None:
    regression(tmp_path / "run", **OPTIONS)
    with pytest.raises(RunError, match=r"in use already; `autoprune\.search\(…, run_dir=.*resume=True\)` .* run_dir$"):
        regression(tmp_path / "run", perceptron(), **OPTIONS)


def test_a_run_of_a_job_file_is_resumed_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = load_job(write_job(tmp_path / "job.yaml", {"verdict.seeds": 0}))
    driver.start_job(job, tmp_path / "run", progress="plain")
    assert hint("".join(capsys.readouterr())) == f"autoprune resume {tmp_path / 'run'}"
    with pytest.raises(RunError, match=r"`autoprune resume .*` goes on .* --run-dir$"):
        driver.start_job(job, tmp_path / "run", progress="silent")
