from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from fake_search import ROOMY, Fake, gist, noisy, session

from autoprune.controllers.base import TrialState
from autoprune.engines import local
from autoprune.errors import EvaluationError, RunError
from autoprune.space.groups import SearchSpace, WidthGroup
from autoprune.tasks.score import Score, packed, unpacked
from autoprune.trials.assignment import Assignment, Outcome
from autoprune.trials.ledger import Ledger, Notebook, open_storage

SPACE = ROOMY.space


def assignment(number: int) -> Assignment:
    return Assignment(number, SPACE.uniform(0.5), "controller", 11 * number, number // 2, {"flops": 10.0})


def ledger(folder: Path, *, url: str | None = None, name: str = "search") -> Ledger:
    return Ledger(open_storage(url, folder / "journal.log"), name, SPACE)


@pytest.mark.parametrize("url", [None, "sqlite:///{folder}/trials.db"])
def test_trials_survive_in_any_storage(tmp_path: Path, url: str | None) -> None:
    url = url and url.format(folder=tmp_path)
    first = ledger(tmp_path, url=url)
    for number in range(3):
        first.start(assignment(number))
    told = [
        first.finish(assignment(2), Outcome(-0.25, seconds=1.5)),
        first.finish(assignment(0), Outcome(None, "Traceback …\nValueError: nö", 2.0)),
    ]
    again = ledger(tmp_path, url=url)
    assert again.trials() == told, "in the order in which they ended"
    assert again.proposals() == [(assignment(0), True), (assignment(1), False), (assignment(2), True)]
    assert told[1].state is TrialState.FAILED
    assert told[1].error == "Traceback …\nValueError: nö"


@pytest.mark.parametrize("fidelity", [0.0, 1.01, float("nan")])
def test_an_outcome_of_no_share_of_a_training_is_refused(fidelity: float) -> None:
    with pytest.raises(EvaluationError, match="share of a training above 0"):
        Outcome(0.5, pruned=True, fidelity=fidelity)


def test_a_trial_that_was_stopped_early_keeps_the_share_of_its_training(tmp_path: Path) -> None:
    first = ledger(tmp_path)
    first.start(assignment(0))
    told = first.finish(assignment(0), Outcome(0.5, pruned=True, fidelity=0.25))
    assert (told.state, told.fidelity) == (TrialState.PRUNED, 0.25)
    assert ledger(tmp_path).trials() == [told]


def test_a_search_resumes_from_a_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/trials.db"
    whole, part = session(tmp_path / "whole"), session(tmp_path / "part", url=url)
    local.run(whole, Fake(noisy))
    for _ in range(5):
        step = part.ask()
        assert step is not None
        part.tell(step, Outcome(noisy(step.widths, step.seed)))
    part.ask()
    resumed = session(tmp_path / "part", url=url)
    local.run(resumed, Fake(noisy))
    assert gist(resumed.trials) == gist(whole.trials)
    assert not (tmp_path / "part" / "journal.log").exists()


@pytest.mark.parametrize(
    "torn", [b"{", b'{"op_code": 8, "worker_id": "', b"\xc3", b'{"op_code": 8, "trial_id": 0, "state": 1}']
)
def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path: Path, torn: bytes) -> None:
    book = ledger(tmp_path)
    book.start(assignment(0))
    journal = tmp_path / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + torn)
    again = ledger(tmp_path)
    assert journal.read_bytes().startswith(whole)
    assert torn + b"\n" not in journal.read_bytes()
    again.finish(assignment(0), Outcome(1.0))
    assert [t.score for t in ledger(tmp_path).trials()] == [1.0]


@pytest.mark.parametrize("cut", range(1, 300, 29))
def test_a_journal_cut_anywhere_loses_no_more_than_its_last_entry(tmp_path: Path, cut: int) -> None:
    book = ledger(tmp_path)
    for number in range(4):
        book.start(assignment(number))
        book.finish(assignment(number), Outcome(float(number)))
    journal = tmp_path / "journal.log"
    journal.write_bytes(journal.read_bytes()[:-cut])
    proposals, trials = ledger(tmp_path).proposals(), ledger(tmp_path).trials()
    assert [a.number for a, _ in proposals] == [0, 1, 2, 3]
    assert [t.score for t in trials] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("make", [lambda lock: lock.symlink_to(lock.parent / "journal.log"), lambda lock: lock.touch()])
def test_a_lock_left_by_a_kill_does_not_hold_up_the_next_run(tmp_path: Path, make: object) -> None:
    ledger(tmp_path).start(assignment(0))
    make(tmp_path / "journal.log.lock")  # type: ignore[operator]
    started = time.perf_counter()
    ledger(tmp_path).finish(assignment(0), Outcome(1.0))
    assert time.perf_counter() - started < 5


def test_optuna_itself_reads_the_journal(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    for number, outcome in enumerate([Outcome(0.5), Outcome(0.75), Outcome(None, "boom")]):
        book.start(assignment(number))
        book.finish(assignment(number), outcome)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    study = optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    assert study.best_value == 0.75
    assert study.best_params == SPACE.by_name(assignment(1).widths)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert study.trials[0].user_attrs["costs"] == {"flops": 10.0}


def test_uneven_choices_are_categories(tmp_path: Path) -> None:
    groups = (WidthGroup("stem", 7, (1, 2, 7)), WidthGroup("block", 8, (4, 8)), WidthGroup("head", 3, (3,)))
    book = Ledger(open_storage(None, tmp_path / "journal.log"), "search", SearchSpace(groups))
    book.start(Assignment(0, (2, 8, 3), "controller", 0, 0, {}))
    assert book.finish(Assignment(0, (2, 8, 3), "controller", 0, 0, {}), Outcome(1.0)).widths == (2, 8, 3)
    assert book.trials()[0].widths == (2, 8, 3)


def test_a_notebook_keeps_every_record_on_disk(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path / "journal.log")
    Notebook(storage, "finals").write("a/0", 0.125, {"epochs": 3})
    Notebook(storage, "finals").write("b/0", -1.0, {"epochs": 4})
    found = Notebook(open_storage(None, tmp_path / "journal.log"), "finals").read()
    assert {key: (note["score"], note["epochs"]) for key, note in found.items()} == {
        "a/0": (0.125, 3),
        "b/0": (-1.0, 4),
    }
    assert Notebook(storage, "other").read() == {}


@pytest.mark.parametrize("url", ["sqlite:////no/such/folder/x.db", "nonsense", "mysql+nothing://x"])
def test_a_storage_that_cannot_be_opened_is_one_clear_error(tmp_path: Path, url: str) -> None:
    with pytest.raises(RunError, match=r"cannot be opened: .*Set search\.storage") as caught:
        open_storage(url, tmp_path / "journal.log")
    assert "\n" not in str(caught.value)


def test_optunas_log_level_is_as_before(tmp_path: Path) -> None:
    logger = logging.getLogger("optuna")
    logger.setLevel(logging.DEBUG)
    try:
        book = ledger(tmp_path)
        book.start(assignment(0))
        book.finish(assignment(0), Outcome(1.0))
        assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("url", [None, "sqlite:///{folder}/trials.db"])
def test_the_noise_of_a_score_and_the_values_behind_it_are_kept(tmp_path: Path, url: str | None) -> None:
    url = url and url.format(folder=tmp_path)
    first, right = ledger(tmp_path, url=url), np.random.default_rng(0).random(1000) < 0.9
    losses = np.random.default_rng(1).random(100)
    scores = [Score(90.0, 0.95, examples=right), Score(-0.5, 0.1, paired=True, examples=losses), 3.5]
    told = []
    for number, score in enumerate(scores):
        first.start(assignment(number))
        told.append(first.finish(assignment(number), Outcome.of(score, partial=((1 / 9, 0.25),))))
    again = ledger(tmp_path, url=url)
    assert again.trials() == told
    assert [(trial.standard_error, trial.paired, trial.noise) for trial in told] == [
        (0.95, False, 0.0),
        (0.1, True, 0.1),
        (None, False, 0.0),
    ]
    kept = again.examples()
    assert list(kept) == [0, 1]
    assert kept[0].dtype == bool
    assert (kept[0] == right).all()
    assert kept[1] == pytest.approx(losses, rel=1e-6)


def test_an_end_without_noise_is_written_and_read_as_before_there_was_any(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path / "journal.log")
    first = Ledger(storage, "search", SPACE)
    first.start(assignment(0))
    told = first.finish(assignment(0), Outcome(0.5, seconds=2.0))
    (entry,) = storage.get_all_trials(storage.get_study_id_from_name("search"))
    assert entry.user_attrs["end"] == {"order": 0, "seconds": 2.0, "error": None}
    assert (told.standard_error, told.paired, told.partial) == (None, False, ())
    assert first.examples() == {}


@pytest.mark.parametrize(("share", "most"), [(0.5, 1720), (0.9, 1020)])
def test_values_of_examples_are_as_small_as_is_said(share: float, most: int) -> None:
    right = np.random.default_rng(0).random(10_000) < share
    assert len(packed(right)) <= most
    assert (unpacked(packed(right)) == right).all()
    assert len(packed(np.random.default_rng(0).random(10_000))) <= 50_000
    assert len(unpacked(packed(np.empty(0, bool)))) == 0
