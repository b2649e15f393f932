"""A run whose evaluator prepares something: made once, kept in the run directory, found again after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import final

import pytest
from tiny import regression

from autoprune.errors import ConfigError, RunError
from autoprune.evaluators import EVALUATORS
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.registry import Part
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score
from autoprune.training.watch import Watch

PREPARED: list[str] = []
DIES: list[bool] = []


@final
class Table(Evaluator):
    """Looks up a factor that it has written to a file."""

    def __init__(self, factory: CandidateFactory, *, factor: float = 2.0) -> None:
        self._factory, self._factor, self._read = factory, factor, 0.0

    def prepare(self, directory: Path, *, seed: int) -> None:
        PREPARED.append(f"seed {seed}")
        (directory / "factor.txt").write_text(str(self._factor))

    def load(self, directory: Path) -> None:
        self._read = float((directory / "factor.txt").read_text())

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> Score:
        if DIES:
            raise KeyboardInterrupt
        return Score(self._read * sum(width**0.5 for width in widths), 0.5)


@final
class Outer(Evaluator):
    nests = ("inner",)

    def __init__(self, factory: CandidateFactory, *, inner: Evaluator) -> None:
        self._inner = inner

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        return float(self._inner.evaluate(widths, seed=seed))


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    PREPARED.clear(), DIES.clear()
    for name, own in {"table": Table, "outer": Outer}.items():
        monkeypatch.setitem(EVALUATORS._table, name, Part(f"{__name__}:{own.__name__}"))


@pytest.mark.parametrize("evaluator", ["table", {"name": "outer", "settings": {"inner": "table"}}])
def test_it_is_prepared_once_in_a_run_that_was_killed(tmp_path: Path, evaluator: object) -> None:
    whole = regression(tmp_path / "whole", evaluator=evaluator, seed=4)
    assert PREPARED == ["seed 4"]
    DIES.append(True)
    with pytest.raises(KeyboardInterrupt):
        regression(tmp_path / "killed", evaluator=evaluator, seed=4)
    DIES.clear()
    resumed = regression(tmp_path / "killed", evaluator=evaluator, seed=4, resume=True)
    assert PREPARED == ["seed 4", "seed 4"]
    assert [(t.widths, t.score) for t in resumed.trials] == [(t.widths, t.score) for t in whole.trials]
    for trial in whole.trials:
        assert trial.score == pytest.approx(2.0 * sum(width**0.5 for width in trial.widths))
        assert trial.standard_error == (0.5 if evaluator == "table" else None)


@pytest.mark.parametrize("lost", ["evaluator/factor.txt", "evaluator.json"])
@pytest.mark.parametrize("same", [True, False])
def test_what_was_prepared_and_is_damaged_is_prepared_again_if_it_comes_out_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str, same: bool
) -> None:
    DIES.append(True)
    with pytest.raises(KeyboardInterrupt):
        regression(tmp_path / "run", evaluator="table")
    DIES.clear()
    path = tmp_path / "run" / lost
    before = path.read_bytes()
    path.write_text("3")
    if same:
        regression(tmp_path / "run", evaluator="table", resume=True)
        assert path.read_bytes() == before
        return
    monkeypatch.setattr(Table, "prepare", lambda self, folder, *, seed: (folder / "factor.txt").write_text("3"))
    with pytest.raises(RunError, match=r"(again gave|prepared now is) something else.*start a new run"):
        regression(tmp_path / "run", evaluator="table", resume=True)


def test_a_fault_inside_is_found_before_anything_is_written(tmp_path: Path) -> None:
    wrong = {"name": "outer", "settings": {"inner": {"name": "table", "settings": {"faktor": 1}}}}
    with pytest.raises(ConfigError, match=r"evaluator\.settings\.inner: evaluator 'table' has no setting 'faktor'"):
        regression(tmp_path / "run", evaluator=wrong)
    assert not (tmp_path / "run").exists()


def test_usual_evaluators_leave_no_folder(tmp_path: Path) -> None:
    regression(tmp_path / "run")
    assert not any("evaluator" in path.name for path in (tmp_path / "run").iterdir())
