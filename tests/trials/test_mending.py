"""Journals that were damaged: what is known to be right is kept, and a search goes on from there to the same end."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_search import Fake, gist, noisy, session

from autoprune.engines import local
from autoprune.trials.ledger import Notebook, open_storage
from autoprune.trials.mending import mend

Damage = Callable[[list[bytes], random.Random], list[bytes]]


def missing(lines: list[bytes], rng: random.Random) -> list[bytes]:
    place = rng.randrange(len(lines))
    return lines[:place] + lines[place + 1 :]


def doubled(lines: list[bytes], rng: random.Random) -> list[bytes]:
    place = rng.randrange(len(lines))
    return [*lines[: place + 1], *lines[place:]]


def swapped(lines: list[bytes], rng: random.Random) -> list[bytes]:
    place = rng.randrange(len(lines) - 1)
    return [*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]]


def far_away(lines: list[bytes], rng: random.Random) -> list[bytes]:
    first, last = sorted(rng.sample(range(len(lines)), 2))
    return [*lines[:first], lines[last], *lines[first:last], *lines[last + 1 :]]


def zeros(lines: list[bytes], rng: random.Random) -> list[bytes]:
    content = b"".join(lines)
    first = rng.randrange(len(content) - 200)
    return (content[:first] + bytes(200) + content[first + 200 :]).splitlines(keepends=True)


def a_changed_digit(lines: list[bytes], rng: random.Random) -> list[bytes]:
    content = bytearray(b"".join(lines))
    place = rng.choice([n for n, byte in enumerate(content) if chr(byte).isdigit()])
    content[place] = ord("9") if content[place] != ord("9") else ord("1")
    return bytes(content).splitlines(keepends=True)


def foreign(lines: list[bytes], rng: random.Random) -> list[bytes]:
    place = rng.randrange(len(lines))
    return [*lines[:place], rng.choice([b"\n", b"null\n", b"[1]\n", b'{"op_code":4}\n', b"\xff\xfe\n"]), *lines[place:]]


def torn(lines: list[bytes], rng: random.Random) -> list[bytes]:
    content = b"".join(lines)
    return content[: rng.randrange(len(content))].splitlines(keepends=True)


DAMAGES: list[Damage] = [missing, doubled, swapped, far_away, zeros, a_changed_digit, foreign, torn]
HARMLESS = (doubled, swapped, far_away, foreign)
"""After these every line is still there, somewhere."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    local.run(session(folder), Fake(noisy))
    Notebook(open_storage(None, folder / "journal.log"), "notes").write("a", 1.0, {})
    return folder


def damaged_copy(finished: Path, folder: Path, damage: Damage, seed: int, *, sums: bool = True) -> Path:
    shutil.copytree(finished, folder)
    journal = folder / "journal.log"
    if not sums:
        strip(journal)
    journal.write_bytes(b"".join(damage(journal.read_bytes().splitlines(keepends=True), random.Random(seed))))
    return journal


def strip(journal: Path) -> None:
    """As versions before there were sums have written it."""
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    for entry in entries:
        del entry["sum"]
    journal.write_text("".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries))


@pytest.mark.parametrize(("damage", "seed"), list(itertools.product(DAMAGES, range(6))))
def test_a_search_goes_on_from_a_damaged_journal_to_the_same_end(
    finished: Path, tmp_path: Path, damage: Damage, seed: int
) -> None:
    whole = session(finished)
    journal = damaged_copy(finished, tmp_path / "run", damage, seed)
    as_found, evaluator = journal.read_bytes(), Fake(noisy)
    local.run(resumed := session(tmp_path / "run"), evaluator)
    assert gist(resumed.trials) == gist(whole.trials)
    if damage in HARMLESS:
        assert evaluator.calls == [], "nothing is lost"
        assert journal.read_bytes().startswith((finished / "journal.log").read_bytes())
    if damage is not torn:
        assert (tmp_path / "run" / "damaged" / "journal.log").read_bytes() == as_found
    assert mend(journal) is None, "it is whole now"


@pytest.mark.parametrize(
    ("damage", "seed"), list(itertools.product([missing, doubled, swapped, far_away, zeros, foreign, torn], range(6)))
)
def test_a_journal_without_sums_keeps_what_can_follow_on_each_other(
    finished: Path, tmp_path: Path, damage: Damage, seed: int
) -> None:
    damaged_copy(finished, tmp_path / "run", damage, seed, sums=False)
    local.run(resumed := session(tmp_path / "run"), Fake(noisy))
    assert gist(resumed.trials) == gist(session(finished).trials)


def test_a_journal_begun_without_sums_goes_on_with_them(finished: Path, tmp_path: Path) -> None:
    journal = damaged_copy(finished, tmp_path / "run", lambda lines, rng: lines[:20], 0, sums=False)
    before = journal.read_bytes()
    local.run(resumed := session(tmp_path / "run"), Fake(noisy))
    assert gist(resumed.trials) == gist(session(finished).trials)
    assert journal.read_bytes().startswith(before)
    assert mend(journal) is None
    journal.write_bytes(journal.read_bytes().replace(b'"order":1,', b'"order":1, ', 1))
    assert "is damaged" in str(mend(journal)), "the first sum is over what was there before"


def test_what_a_dashboard_has_written_in_between_stays(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    journal = tmp_path / "run" / "journal.log"
    line = b'{"op_code":3,"worker_id":"dashboard","study_id":0,"system_attr":{"dashboard:note":"nice"}}\n'
    notes = Notebook(open_storage(None, journal), "notes")
    with journal.open("ab") as file:
        file.write(line)
    assert mend(journal) is None
    notes.write("b", 2.0, {})
    assert line in journal.read_bytes()
    assert mend(journal) is None


def test_it_is_told_what_was_damaged_and_what_was_kept(finished: Path, tmp_path: Path) -> None:
    told: list[str] = []
    journal = damaged_copy(finished, tmp_path / "run", lambda lines, rng: lines[:10] + lines[11:], 0)
    open_storage(None, journal, note=told.append)
    total = len((finished / "journal.log").read_bytes().splitlines()) - 1
    assert told == [
        f"{journal} is damaged: 10 of its {total} lines are known to be right and hold; what came after them is "
        f"evaluated again; as it was it lies in {tmp_path / 'run' / 'damaged' / 'journal.log'}"
    ]
    open_storage(None, journal, note=told.append)
    assert len(told) == 1
