"""Files are on the disk before they are in their place; what was there before stays until then."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from autoprune.errors import RunError
from autoprune.files import content_of, regular, replace_file, sync_tree, write_whole


def test_a_file_is_synced_before_it_is_in_its_place_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "a.json", list[tuple[str, bytes]]()
    path.write_bytes(b"old")
    monkeypatch.setattr(
        os,
        "fsync",
        lambda descriptor: seen.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), path.read_bytes())),
    )
    replace_file(path, b"new")
    assert seen == [(str(tmp_path / ".a.json.tmp"), b"old"), (str(tmp_path), b"new")]


def test_what_was_there_stays_where_the_new_content_does_not_get_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]
    assert path.read_bytes() == b"old"


def test_what_lies_beside_a_place_is_not_written_to(tmp_path: Path) -> None:
    path, beside = tmp_path / "a.json", tmp_path / ".a.json.tmp"
    (tmp_path / "precious").write_bytes(b"mine")
    beside.symlink_to(tmp_path / "precious")
    replace_file(path, b"new")
    assert (path.read_bytes(), (tmp_path / "precious").read_bytes()) == (b"new", b"mine")
    os.mkfifo(beside)  # nobody reads from it
    replace_file(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert not path.is_symlink()
    beside.mkdir()
    with pytest.raises(RunError, match=r"cannot be written: .* \(\.a\.json\.tmp\)"):
        write_whole(path, b"newest")
    assert path.read_bytes() == b"newer"


def test_a_folder_is_synced_with_all_that_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("a", "deep/b"):
        (tmp_path / name).touch()
    seen = set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.add(str(Path(f"/proc/self/fd/{descriptor}").readlink())))
    sync_tree(tmp_path)
    assert seen == {str(tmp_path / name) for name in (".", "a", "deep", "deep/b")}


def test_a_run_directory_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written: No such file"):
        write_whole(tmp_path / "gone" / "a.json", b"{}")
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "missing"])
def test_only_a_regular_file_is_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    with pytest.raises(OSError, match=r"regular file|Is a directory|Too many levels|No such file"):
        regular(path)
    with pytest.raises(RunError, match=r"a\.json cannot be read: "):
        content_of(path)


def test_a_regular_file_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").symlink_to("a")
    assert content_of(tmp_path / "b") == b"content"
