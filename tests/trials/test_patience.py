"""Storage that refuses writes for a while costs time, not trials."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_search import Fake, gist, noisy, session
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages.journal import JournalFileBackend

from autoprune import files as patience
from autoprune.engines import local
from autoprune.errors import RunError
from autoprune.files import patiently, read_json
from autoprune.testing.spaces import chain_space
from autoprune.trials.assignment import Assignment, Outcome
from autoprune.trials.ledger import Ledger, Notebook, open_storage
from autoprune.trials.run_directory import RunDirectory

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_FIRST_WAIT", 0.001)


def torn(backend: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
    with Path(backend._file_path).open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    raise FULL


def whole_but_not_confirmed(backend: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
    real_append(backend, logs)
    raise FULL


def nothing(backend: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
    raise FULL


def lock_lost(backend: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
    real_append(backend, logs)
    raise RuntimeError("Error: did not possess lock")


real_append = JournalFileBackend.append_logs


@pytest.mark.parametrize("failure", [torn, whole_but_not_confirmed, nothing, lock_lost])
def test_a_journal_that_fails_now_and_then_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Callable[..., None]
) -> None:
    undisturbed = session(tmp_path / "undisturbed")
    local.run(undisturbed, Fake(noisy))
    search, evaluator, writes = session(tmp_path / "disturbed"), Fake(noisy), 0

    def append(backend: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        nonlocal writes
        writes += 1
        (failure if writes % 3 == 0 else real_append)(backend, logs)

    monkeypatch.setattr(JournalFileBackend, "append_logs", append)
    local.run(search, evaluator)
    monkeypatch.undo()
    assert gist(search.trials) == gist(undisturbed.trials)
    assert len(evaluator.calls) == len(set(evaluator.calls)), "nothing was evaluated twice"
    disturbed, plain = ((tmp_path / name / "journal.log").read_bytes() for name in ("disturbed", "undisturbed"))
    assert disturbed.count(b"\n") == plain.count(b"\n")
    assert gist(session(tmp_path / "disturbed").trials) == gist(undisturbed.trials), "as read from disk"


def test_a_database_that_is_away_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'trials.db'}"
    search, attempts, create = session(tmp_path / "run", url=url), 0, RDBStorage._create_new_trial

    def away(storage: RDBStorage, *args: Any, **kwargs: Any) -> Any:
        nonlocal attempts
        attempts += 1
        made = create(storage, *args, **kwargs) if attempts % 3 == 0 else None  # written, but its answer was lost
        if attempts % 3 != 1:
            raise StorageInternalError("the database is away")
        return made if made is not None else create(storage, *args, **kwargs)

    monkeypatch.setattr(RDBStorage, "_create_new_trial", away)
    local.run(search, Fake(noisy))
    monkeypatch.undo()
    assert [trial.number for trial in search.trials] == list(range(search.total))
    assert attempts > search.total
    assert gist(session(tmp_path / "run", url=url).trials) == gist(search.trials)


def test_after_some_time_the_run_ends_and_can_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search, evaluator = session(tmp_path / "run"), Fake(noisy)
    local.run(whole := session(tmp_path / "whole"), Fake(noisy))
    with monkeypatch.context() as patch:
        patch.setattr(patience, "PATIENCE", 0.02)
        patch.setattr(JournalFileBackend, "append_logs", lambda self, logs: (_ for _ in ()).throw(FULL))
        with pytest.raises(
            RunError, match=r"the ledger could not be written for 0 s: .*No space left.* then resume the run"
        ):
            local.run(search, evaluator)
    local.run(resumed := session(tmp_path / "run"), evaluator)
    assert gist(resumed.trials) == gist(whole.trials)


def test_waiting_is_told_once_and_so_is_its_end() -> None:
    told: list[str] = []
    answers = iter([FULL, FULL, FULL, None])

    def action() -> int:
        if error := next(answers):
            raise error
        return 3

    assert patiently(action, "the ledger", (OSError,), note=told.append) == 3
    assert [line.partition(" (")[0] for line in told] == [
        "the ledger cannot be written",
        "the ledger can be written again",
    ]
    with pytest.raises(KeyError):
        patiently(lambda: {}["other errors pass"], "the ledger", (OSError,))


def test_a_notebook_waits_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(open_storage(None, tmp_path / "journal.log"), "notes")
    answers = iter([whole_but_not_confirmed, torn, real_append])
    monkeypatch.setattr(JournalFileBackend, "append_logs", lambda backend, logs: next(answers)(backend, logs))
    notebook.write("a", 1.0, {})
    monkeypatch.undo()
    again = Notebook(open_storage(None, tmp_path / "journal.log"), "notes")
    assert {key: record["score"] for key, record in again.read().items()} == {"a": 1.0}


def test_a_run_directory_waits_but_not_for_a_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunDirectory.create(tmp_path / "run") as directory:
        sync, answers = os.fsync, iter([FULL, FULL, None, None, OSError(errno.EACCES, "Permission denied")])

        def sometimes(descriptor: int) -> None:  # of the file, twice in vain, and of its folder
            if error := next(answers):
                raise error
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", sometimes)
        directory.write_json("notes.json", {"a": 1})
        with pytest.raises(RunError, match="cannot be written: Permission denied; check the permissions"):
            directory.write_json("notes.json", {"a": 2})
        monkeypatch.undo()
        assert read_json(directory / "notes.json") == {"a": 1}


@pytest.mark.parametrize("write", ["create_new_trial", "set_trial_state_values"])
def test_a_database_that_does_not_confirm_a_write_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    book = Ledger(open_storage(f"sqlite:///{tmp_path}/t.db", tmp_path / "none"), "search", chain_space((8, 8)))
    real, calls = getattr(book._at, write), []

    def unconfirmed(*given: Any) -> Any:
        calls.append(real(*given))
        if len(calls) == 1:
            raise OSError("no answer")
        return calls[-1]

    monkeypatch.setattr(book._at, write, unconfirmed)
    proposal = Assignment(0, (4, 4), "controller", 1, 0, {})
    book.start(proposal)
    book.finish(proposal, Outcome(1.0))
    again = Ledger(open_storage(f"sqlite:///{tmp_path}/t.db", tmp_path / "none"), "search", chain_space((8, 8)))
    assert [trial.score for trial in again.trials()] == [1.0]
    assert len(again.proposals()) == len(again._at.get_all_trials(again._study)) == 1


def test_what_is_told_of_a_storage_holds_no_secret() -> None:
    told: list[str] = []

    def away() -> None:
        raise OSError("postgresql://user:hunter2@host/name does not answer")

    with pytest.raises(RunError) as caught:
        patiently(away, "the ledger", (OSError,), note=told.append, patience=0.01)
    assert "(OSError: postgresql://user:***@host/name does not answer); trying again" in told[0]
    assert "hunter2" not in str(caught.value)
