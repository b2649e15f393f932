from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from autoprune.errors import RunError
from autoprune.files import free_directory, read_json
from autoprune.trials.run_directory import RunDirectory


def test_a_new_directory_is_made_and_reopened(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "deep" / "run") as directory:
        directory.update_run(a=1)
        directory.update_run(b=[2])
    with RunDirectory.reopen(tmp_path / "deep" / "run") as again:
        assert (again.recorded("a"), again.recorded("b")) == (1, [2])
        with pytest.raises(RunError, match="it has no 'c'"):
            again.recorded("c")


def test_two_drivers_cannot_work_on_one_run(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path) as first:
        first.update_run()
        for enter in (RunDirectory.reopen, RunDirectory.create):
            with pytest.raises(RunError, match=r"another process|in use already"):
                enter(tmp_path)
    RunDirectory.reopen(tmp_path).__exit__(None, None, None)


def test_a_second_start_at_the_same_moment_is_refused(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path), pytest.raises(RunError, match="another process"):
        RunDirectory.create(tmp_path)


@pytest.mark.parametrize("left", ["run.json", "thesis.tex", "journal.log", "job.yaml"])
def test_a_used_directory_is_refused_and_left_alone(tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_text("{}")
    for check in (RunDirectory.check_free, RunDirectory.create):
        with pytest.raises(RunError, match="in use already; `autoprune resume"):
            check(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [left]


@pytest.mark.parametrize("left", [(".lock",), (".lock", "job.yaml", ".space.json.tmp"), (".lock", ".run.json.tmp")])
def test_a_start_killed_before_the_run_began_can_be_repeated(tmp_path: Path, left: tuple[str, ...]) -> None:
    for name in left:
        (tmp_path / name).write_text("{")
    with pytest.raises(RunError, match="start the run with `autoprune search`"):
        RunDirectory.reopen(tmp_path)
    RunDirectory.create(tmp_path).__exit__(None, None, None)


def test_what_cannot_be_written_is_found_without_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "run", tmp_path / "file"):
        with pytest.raises(RunError, match=r"is a file|in use already"):
            RunDirectory.check_free(path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # permissions do not bind root
    with pytest.raises(RunError, match=r"no permission .* check the permissions or give another"):
        RunDirectory.check_free(tmp_path / "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_directory_nobody_can_make_is_one_clear_error() -> None:
    with pytest.raises(RunError, match="cannot be written"):
        RunDirectory.create(Path("/proc/no_such_folder/run"))


def test_files_are_replaced_whole_and_are_strict_json(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path) as directory:
        directory.write_json("a.json", {"x": 1})
        with pytest.raises(ValueError, match="not JSON compliant"):
            directory.write_json("a.json", {"x": math.inf})
        assert read_json(tmp_path / "a.json") == {"x": 1}
        assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00", '"run"'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        read_json(tmp_path / "run.json")
    with pytest.raises(RunError, match=r"other\.json cannot be read: No such file"):
        read_json(tmp_path / "other.json")


def test_free_directories_count_up(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        path = free_directory(tmp_path, "digits")
        path.mkdir()
        names.append(path.name)
    assert names == ["digits", "digits-2", "digits-3"]
