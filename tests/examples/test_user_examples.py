"""The script of each kind of user, as it is among the slow tests; the quick ones also in little with every run."""

from __future__ import annotations

import resource
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TWO_MINUTES_ON_TWO_CORES = 240.0
LITTLE = ("--trials", "2", "--epochs", "1", "--seeds", "1")
SAYS = {
    "language_model": ("At 60 % of ", "before the cut: perplexity ", "winner: perplexity "),
    "budgeted_job": ("after ", "without autoprune it reads ", "'flops': '"),
    "own_task": ("closed loop", "uniform_all: even ", "At 30 % of the FLOPs"),
    "reference_architecture": ("At 60 % of the FLOPs", "At 30 % of the FLOPs", "published in "),
    "multilabel": ("At 33 % of the FLOPs", "right: even ", "report: "),
    "regression": ("At 33 % of the parameters", "mean squared error on test examples: ", "report: "),
    "segmentation": ("At 40 % of the FLOPs", "% mean IoU on 96 images", "report: "),
    "detection": ("At 50 % of the FLOPs", "in the first test image are ", "report: "),
    "sequence_classification": ("At 25 % of the parameters", " is of _pydecimal, read as ", "report: "),
    "team_on_ray": ("exit code 143", "'complete': ", "alone: At 50 %"),
}
"""Script -> what it prints."""


def seconds() -> float:
    """Of all cores, of this process and those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def run(
    name: str,
    arguments: tuple[str, ...],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[str, float]:
    """What a script prints, and the seconds that it took."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [name, *arguments, "--run", str(folder / "run")])
    begun = seconds()
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out, seconds() - begun


@pytest.mark.parametrize("name", ["own_task", "regression", "detection"])
def test_an_example_runs_in_little(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = run(name, LITTLE, tmp_path, monkeypatch, capsys)
    assert all(told in out for told in SAYS[name]), out


@pytest.mark.slow
@pytest.mark.parametrize("name", SAYS)
def test_an_example_as_it_is_takes_two_minutes_of_two_cores_at_most(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, took = run(name, (), tmp_path, monkeypatch, capsys)
    assert all(told in out for told in SAYS[name]), out
    assert took < TWO_MINUTES_ON_TWO_CORES


def test_each_example_has_a_script_and_its_page_names_it() -> None:
    text = (EXAMPLES.parent / "docs" / "index.md").read_text()
    for name in SAYS:
        assert (EXAMPLES / f"{name}.py").is_file()
        assert f"{name}.py" in text
