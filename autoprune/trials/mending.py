"""A journal as it can be gone on with: torn lines dropped, misplaced ones put back, what does not fit set aside."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice, takewhile
from pathlib import Path

from autoprune.files import content_of, replace_file
from autoprune.trials.entries import Entries
from autoprune.trials.journal import RunningSum, has_sum
from autoprune.trials.run_files import set_aside

_AHEAD = 1000
"""So many lines are searched for the one that belongs to a place."""


def mend(journal: Path) -> str | None:
    """Make a journal whole; the caller holds the run's own lock.

    A line cut short by a kill is dropped without a word, and so is a lock left behind. Where more is wrong, the journal
    keeps what is known to be right, and lies in `damaged` as it was.

    Returns:
        What was wrong and what became of it; None where nothing was.
    """
    journal.with_name(journal.name + ".lock").unlink(missing_ok=True)
    if not journal.exists():
        return None
    content = content_of(journal)
    whole = content[: content.rfind(b"\n") + 1]
    lines = [line + b"\n" for line in whole.split(b"\n")[:-1]]
    kept = _fitting(lines)
    mended = b"".join(kept)
    if mended == whole:
        if len(whole) < len(content):
            with journal.open("r+b") as file:
                file.truncate(len(whole))
        return None
    where = set_aside(journal, content)
    replace_file(journal, mended)
    lost = len(set(lines) - set(kept))
    if not lost:
        return (
            f"{journal} held lines that were doubled or out of place: it was put right, and nothing is lost; as it was "
            f"it lies in {where}"
        )
    return (
        f"{journal} is damaged: {len(kept)} of its {len(lines)} lines are known to be right and hold; what came after "
        f"them is evaluated again; as it was it lies in {where}"
    )


def _fitting(lines: Sequence[bytes]) -> list[bytes]:
    """The lines that are known to be right, in the order in which they were written."""
    chain, kept, rest = RunningSum(), list[bytes](), deque(lines)
    summed = False

    def take(taken: Iterable[bytes]) -> None:
        for line in taken:
            chain.read(line)
            kept.append(line)

    while rest:
        stretch = list(takewhile(lambda line: not has_sum(line), rest))
        if not stretch:
            place = next((n for n, line in enumerate(islice(rest, _AHEAD)) if chain.fits(line)), None)
            if place is None:
                break
            take([rest[place]])
            del rest[place]
            summed = True
            continue
        for _ in stretch:
            rest.popleft()
        ahead = chain.copy()
        ahead.read(b"".join(stretch))
        if rest and ahead.fits(rest[0]):
            take(stretch)
        elif not rest or not summed:  # of an older version, or the newest: nothing after it vouches for it
            take(_consistent(kept, stretch))
    return kept


def _consistent(kept: Sequence[bytes], stretch: Sequence[bytes]) -> list[bytes]:
    """As many lines of a stretch without sums as can follow on those before."""
    entries = Entries()
    for line in kept:
        entries.accept(line)
    return list(takewhile(entries.accept, stretch))
