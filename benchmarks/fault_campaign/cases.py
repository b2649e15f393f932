"""What became of one fault, and how the command line is called and judged."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

from autoprune.cli.main import main

Outcome: TypeAlias = Literal["survived", "clear error", "lost", "wrong", "traceback", "not hit"]
"""survived: the run ends with the results of an undisturbed one; lost: it cannot be brought to its end; wrong: it ends
with other results, or says nothing of damage that it used; not hit: the fault came too late."""

LINES, CHARACTERS = 24, 2000
"""A message fits on a screen."""


@final
@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        kind: of fault.
        name: what exactly.
        outcome: what became of the run.
        told: the message, or what went wrong.
        seed, number: what it was drawn from.
    """

    kind: str
    name: str
    outcome: Outcome
    told: str = ""
    seed: int = 0
    number: int = 0

    def line(self) -> str:
        """As a line of JSON."""
        return json.dumps(asdict(self))


class NotHereError(Exception):
    """Such a fault cannot be made on this machine."""


@final
@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, what it printed; code -1 stands for an error that is no message."""

    code: int
    printed: str

    @property
    def clear(self) -> bool:
        """Whether it ended with one clear error."""
        text = self.printed.strip()
        short = len(text.splitlines()) <= LINES and len(text) <= CHARACTERS
        return self.code == 2 and "Traceback" not in text and short

    @property
    def last(self) -> str:
        """The end of what it printed."""
        return self.printed.strip()[-400:]


def command(*arguments: str) -> Ended:
    """`autoprune …`, in this process."""
    printed, before = io.StringIO(), sys.argv
    sys.argv = ["autoprune", *arguments]
    code: Any = 0
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        if isinstance(sys.exc_info()[1], KeyboardInterrupt):
            raise
        printed.write(traceback.format_exc())
        code = -1
    finally:
        sys.argv = before
    return Ended(int(code), printed.getvalue())


def results(run: Path) -> Mapping[str, Any]:
    """All that a run concludes but times, and its networks byte by byte."""
    record = json.loads((run / "result.json").read_text())
    for timed in (*record["trials"], *record["finals"], record["base"]):
        del timed["seconds"]
    weights = {name: (run / name).read_bytes() for name in ("base.safetensors", "export/model.safetensors")}
    return {**record, **weights, "architecture": (run / "export" / "architecture.yaml").read_text()}


def judged(kind: str, name: str, run: Path, reference: Mapping[str, Any], ended: Sequence[Ended]) -> Case:
    """What became of a run after these commands, the first of which is to bring it to its end."""
    for one in ended:
        if one.code not in (0, 2) or not (one.code == 0 or one.clear):
            return Case(kind, name, "traceback", one.last)
    if ended[0].code:
        return Case(kind, name, "lost", ended[0].last)
    found = results(run)
    differing = [key for key, value in reference.items() if found.get(key) != value]
    if differing:
        return Case(kind, name, "wrong", f"differs: {', '.join(differing)}")
    refused = next((one.last for one in ended if one.code), "")
    return Case(kind, name, "clear error" if refused else "survived", refused)
