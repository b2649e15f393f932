"""Files of a run, finished or stopped before its end, that are lost or damaged; journals, and snapshots."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autoprune.trials.snapshots import SNAPSHOT
from fault_campaign.cases import Case, Ended, command, judged

LATE = ("result.json", "report.html", "report.md")
"""Written last: a run without them was stopped just before its end."""

Change = Callable[[bytes, random.Random], bytes | None]


def _flipped(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return b"\0"
    found = bytearray(content)
    found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


CHANGES: Mapping[str, Change] = {
    "missing": lambda content, rng: None,
    "empty": lambda content, rng: b"",
    "truncated": lambda content, rng: content[: rng.randrange(max(1, len(content)))],
    "second half zero": lambda content, rng: content[: len(content) // 2] + bytes(len(content) - len(content) // 2),
    "one bit": _flipped,
    "null": lambda content, rng: b"null\n",
    "appended": lambda content, rng: content + b"garbage \xff\n",
    "random bytes": lambda content, rng: rng.randbytes(len(content)),
}

Lines = Callable[[list[bytes], random.Random], list[bytes]]


def _swapped(lines: list[bytes], rng: random.Random) -> list[bytes]:
    place = rng.randrange(len(lines) - 1)
    return [*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]]


def _without(lines: list[bytes], rng: random.Random) -> list[bytes]:
    place = rng.randrange(len(lines))
    return lines[:place] + lines[place + 1 :]


def _doubled(lines: list[bytes], rng: random.Random) -> list[bytes]:
    place = rng.randrange(len(lines))
    return [*lines[: place + 1], *lines[place:]]


def _bytewise(change: Change) -> Lines:
    return lambda lines, rng: (change(b"".join(lines), rng) or b"").splitlines(keepends=True)


JOURNALS: Mapping[str, Lines] = {
    "a line missing": _without,
    "a line doubled": _doubled,
    "two lines swapped": _swapped,
    "lines in any order": lambda lines, rng: rng.sample(lines, len(lines)),
    **{name: _bytewise(CHANGES[name]) for name in ("truncated", "second half zero", "one bit", "appended", "missing")},
}


def damaged_file(finished: Path, reference: Mapping[str, Any], folder: Path, number: int, rng: random.Random) -> Case:
    """Damage of one file, of each in turn; then resume, report and export.

    Args:
        finished: a run.
        reference: its results.
        folder: to work in.
        number: of the case.
        rng: chooses.
    """
    names = sorted(path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file())
    names = [name for name in names if name not in (".lock", "journal.log")]
    name, (change, damage), late = names[number % len(names)], rng.choice([*CHANGES.items()]), rng.random() < 0.5
    run = _copied(finished, folder / "run", late=late)
    path = run / name
    content = damage(path.read_bytes(), rng) if path.is_file() else None
    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(content)
    return judged("damaged file", f"{name}: {change}{', unfinished' * late}", run, reference, _all(run, folder, rng))


def damaged_journal(
    finished: Path, reference: Mapping[str, Any], folder: Path, number: int, rng: random.Random
) -> Case:
    """Damage of the journal of a run that was stopped anywhere before its end; arguments as for `damaged_file`."""
    change, damage = [*JOURNALS.items()][number % len(JOURNALS)]
    run = _copied(finished, folder / "run", late=True)
    journal = run / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines = lines[: rng.randint(2, len(lines))]
    journal.write_bytes(b"".join(damage(lines, rng)))
    ended = [command("resume", str(run), "--progress", "silent")]
    return judged("damaged journal", f"{change} of {len(lines)} lines", run, reference, ended)


def _copied(finished: Path, run: Path, *, late: bool) -> Path:
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(finished, run)
    for name in LATE if late else ():
        (run / name).unlink()
    return run


def _all(run: Path, folder: Path, rng: random.Random) -> list[Ended]:
    """Resume first; report and export before it half of the time, when they may refuse."""
    shutil.rmtree(folder / "exported", ignore_errors=True)
    read = [["report", str(run)], ["export", str(run), "--to", str(folder / "exported")]]
    before = [command(*arguments) for arguments in read] if rng.random() < 0.5 else []
    resumed = command("resume", str(run), "--progress", "silent")
    if before:
        return [resumed, *before]
    return [resumed, *(command(*arguments) for arguments in read)]


def _sealed(change: Callable[[Any, random.Random], Any]) -> Change:
    """Change what a snapshot holds, and make it whole again: only its content is wrong."""

    def changed(content: bytes, rng: random.Random) -> bytes:
        text = json.dumps(change(json.loads(content.partition(b"\n")[2]), rng))
        return f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}".encode()

    return changed


WRONG: tuple[Any, ...] = (None, -1, 10**40, 1e300, "text", True, [], [[]], [None] * 8, [[3] * 9], {}, {"a": {}})


def _wrong_type(found: Any, rng: random.Random) -> Any:
    return {**found, rng.choice([*found]): rng.choice(WRONG)}


def _wrong_state(found: Any, rng: random.Random) -> Any:
    # what has no number of entries that it must have may be empty
    values = [value for value in WRONG if value not in ([], [[]])]
    return {**found, "state": {**found["state"], rng.choice([*found["state"]]): rng.choice(values)}}


def _newer(found: Any, rng: random.Random) -> Any:
    more = rng.randint(1, 1000)
    return {**found, "asked": found["asked"] + more, "told": found["told"] + more}


SNAPSHOTS: Mapping[str, Change] = {
    **CHANGES,
    "wrong type": _sealed(_wrong_type),
    "wrong type in its state": _sealed(_wrong_state),
    "newer than the journal": _sealed(_newer),
    "of another version": _sealed(lambda found, rng: {**found, "by": [found["by"][0], "0.0.1", *found["by"][2:]]}),
    "of another ledger": _sealed(lambda found, rng: {**found, "ledger": f"{rng.getrandbits(256):064x}"}),
    "no object": _sealed(lambda found, rng: rng.choice(WRONG)),
}


def damaged_snapshot(
    finished: Path, other: Path, reference: Mapping[str, Any], folder: Path, number: int, rng: random.Random
) -> Case:
    """Damage of the snapshot of a controller, in a run that was stopped anywhere after the trial that it stands for.

    Args:
        finished: a run long enough for a snapshot.
        other: another one, whose snapshot may be taken for its own.
        reference: results of the first.
        folder: to work in.
        number: of the case.
        rng: chooses.
    """
    ways = [*SNAPSHOTS, "of another run", "a folder", "older than the journal says"]
    change = ways[number % len(ways)]
    run = _copied(finished, folder / "run", late=True)
    path, journal = run / SNAPSHOT, run / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    least = len(lines) // 20 if change == "older than the journal says" else len(lines) * 19 // 20
    lines = lines[: rng.randint(least, len(lines))]  # 20 of 120 trials follow the snapshot
    journal.write_bytes(b"".join(lines))
    if change == "of another run":
        shutil.copyfile(other / SNAPSHOT, path)
    elif change == "a folder":
        path.unlink()
        path.mkdir()
    elif change in SNAPSHOTS:
        content = SNAPSHOTS[change](path.read_bytes(), rng)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
    ended = [command("resume", str(run), "--progress", "silent")]
    return judged("damaged snapshot", f"{change}, {len(lines)} lines", run, reference, ended)
