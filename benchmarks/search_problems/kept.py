"""Replays on disk, so that a run that was stopped, or is given one more controller, does only what is missing."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, final

from search_problems.replay import Answer, Replay

Key: TypeAlias = tuple[str, str, tuple[int, ...], int]
"""Problem, controller, evaluations, seed. A search knows how long it will be, so a shorter one is another search."""


@final
class KeptReplays:
    """Replays by what they are of; one JSON line each, written the moment they end.

    A file is of one table and one state of the code: neither is written down.

    Args:
        path: of the file, made where it is missing; None keeps nothing on disk.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.is_file() else []
        records = [record for record in map(_record, lines) if record is not None]
        self._known = dict(map(_read, records))

    def get(self, problem: str, controller: str, evaluations: Sequence[int], seed: int) -> Replay | None:
        """What is known of a search; None where it is to be run."""
        return self._known.get((problem, controller, tuple(evaluations), seed))

    def add(self, problem: str, controller: str, evaluations: Sequence[int], seed: int, found: Replay) -> None:
        """Keep a replay."""
        self._known[problem, controller, tuple(evaluations), seed] = found
        if self._path is None:
            return
        record = {
            "problem": problem,
            "controller": controller,
            "seed": seed,
            "milliseconds": found.milliseconds,
            "answers": {
                n: {name: [answer.widths, answer.gain, answer.expected] for name, answer in both.items()}
                for n, both in found.answers.items()
            },
        }
        with self._path.open("ab+") as file:
            if file.tell() and file.seek(-1, os.SEEK_END) and file.read(1) != b"\n":
                file.write(b"\n")  # after a line that was cut off
            file.write(json.dumps(record).encode() + b"\n")


def _record(line: str) -> dict[str, Any] | None:
    """A line's content; None where it was cut off when the run was stopped."""
    try:
        record: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return record


def _read(record: dict[str, Any]) -> tuple[Key, Replay]:
    answers = {
        int(n): {name: Answer(tuple(widths), gain, expected) for name, (widths, gain, expected) in both.items()}
        for n, both in record["answers"].items()
    }
    key = (record["problem"], record["controller"], tuple(answers), record["seed"])
    return key, Replay(answers, record["milliseconds"])
