"""Checksums in run.json, the second copies of small files, and what is done with damage."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoprune.errors import RunError
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.run_files import FILES, check_files, copy_path, differing, has_begun, read_run, whole, whole_json


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RunDirectory]:
    with RunDirectory.create(tmp_path / "run") as made:
        made.write_text("job.yaml", "name: one\n")
        made.update_run(seed=3)
        made.write_json("result.json", {"a": 1})
        made.write_json("latency.json", {"a": 1})
        yield made


def test_a_file_that_is_replaced_fits_before_and_after(directory: RunDirectory) -> None:
    before = (directory / "latency.json").read_bytes()
    directory.write_json("latency.json", {"a": 2})
    assert differing(directory.path) == {}
    (directory / "latency.json").write_bytes(before)
    assert differing(directory.path) == {}, "killed between run.json and the file itself"
    (directory / "latency.json").write_bytes(b"{}")
    assert differing(directory.path) == {"latency.json": "is not as it was written"}


def test_what_is_kept_twice_is_read_and_restored_and_what_was_damaged_stays(directory: RunDirectory) -> None:
    run = directory.path
    (run / "latency.json").write_bytes(b"\xff")
    (run / "job.yaml").unlink()
    assert whole_json(run, "latency.json") == {"a": 1}
    assert whole(run, "job.yaml") == b"name: one\n"
    told = directory.restore()
    assert [line.partition(":")[0] for line in told] == [
        f"{run / 'job.yaml'} is missing",
        f"{run / 'latency.json'} is not as it was written",
    ]
    assert differing(run) == {}
    assert (run / "damaged" / "latency.json").read_bytes() == b"\xff"
    assert directory.restore() == []


@pytest.mark.parametrize("name", ["job.yaml", "run.json", "result.json", "latency.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_ends_no_command_in_waiting(directory: RunDirectory, name: str, kind: str) -> None:
    path, seed = directory / name, read_run(directory.path)["seed"]
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    assert read_run(directory.path)["seed"] == seed
    if name != "run.json":
        assert differing(directory.path) == {name: "cannot be read"}
    told = directory.restore()
    if copy_path(directory.path, name).exists():
        assert len(told) == 1
        assert path.is_file()
        assert (directory.path / "damaged" / name).exists(), "as it was"
    else:
        with pytest.raises(RunError, match="cannot be read"):
            whole(directory.path, name)


@pytest.mark.parametrize("content", [None, b"", b"{", b"null", b"\xff\x00", b'{"seed": 3, "sha256": "0"}'])
def test_run_json_is_read_from_its_copy_and_put_back(directory: RunDirectory, content: bytes | None) -> None:
    before = read_run(directory.path)
    (directory / "run.json").unlink() if content is None else (directory / "run.json").write_bytes(content)
    assert has_begun(directory.path)
    assert read_run(directory.path) == before
    assert len(directory.restore()) == 1
    assert json.loads((directory / "run.json").read_text())["seed"] == 3


def test_a_digit_that_changed_in_run_json_is_seen(directory: RunDirectory) -> None:
    mark = directory / "run.json"
    mark.write_text(mark.read_text().replace('"seed": 3', '"seed": 8'))
    assert read_run(directory.path)["seed"] == 3
    copy_path(directory.path, "run.json").unlink()
    with pytest.raises(RunError, match=r"run\.json is damaged \(it is not as it was written\); restore it, or start"):
        read_run(directory.path)


@pytest.mark.parametrize("content", [None, b"{}"])
def test_what_has_no_copy_is_refused_and_named(directory: RunDirectory, content: bytes | None) -> None:
    path = directory / "result.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(RunError, match=r"result\.json (cannot be read: No such|is not as it was written).*resume"):
        whole(directory.path, "result.json")
    with pytest.raises(RunError, match=r"result\.json is .*: do this"):
        check_files(directory.path, ("result.json",), "do this")
    assert directory.set_aside_damaged().keys() == {"result.json"}
    assert not path.exists()


def test_a_run_of_an_older_version_is_not_checked(directory: RunDirectory) -> None:
    entries = read_run(directory.path)
    del entries[FILES]
    (directory / "run.json").write_text(json.dumps(entries))
    (directory / "result.json").write_text("{}")
    assert differing(directory.path) == {}
    directory.take_in_all()
    assert read_run(directory.path)[FILES].keys() == {"job.yaml", "latency.json", "result.json"}
