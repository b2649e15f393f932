"""Where recalibrated batch norms change what a report says."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean, stdev

from autoprune.texts import ScoreScale, difference_text, score_text
from autoprune.verdict.record import FinalTraining, RunRecord


def recalibration_notes(record: RunRecord) -> Iterable[str]:
    """A warning that names each network, with both scores, whose score recalibration moves by more than its noise.

    The move is the root mean square over the seeds, as moves up and down leave the means equal. The noise is the
    standard error of the score; where nobody knows it, the spread over training seeds.
    """
    moved = [*_base(record), *_finals(record)]
    if moved:
        yield (
            f"Warning: after training, recalibrating the batch norms moves scores by more than their noise, as running "
            f"statistics lag behind the weights of a short training: {'; '.join(moved)}. All scores in this report are "
            f"of recalibrated networks, and so is the exported one; longer trainings would bring both together."
        )


def _base(record: RunRecord) -> Iterable[str]:
    before, after, noise = (record.base.get(key) for key in ("as_trained", "validation", "noise"))
    if before is not None and after is not None and abs(after - before) > (noise or 0.0):
        yield f"unpruned {_both(before, after, record.scale)} (validation)"


def _finals(record: RunRecord) -> Iterable[str]:
    groups: dict[tuple[str, str], list[FinalTraining]] = {}
    for final in record.finals:
        groups.setdefault((final.arm, final.protocol), []).append(final)
    for (arm, protocol), finals in groups.items():
        spread = stdev(final.score for final in finals) if len(finals) > 1 else 0.0
        noise = fmean(spread if final.noise is None else final.noise for final in finals)
        moves = [final.score - final.as_trained for final in finals if final.as_trained is not None]
        move = math.sqrt(fmean(move**2 for move in moves)) if moves else 0.0
        if move > noise:
            before = fmean(f.score if f.as_trained is None else f.as_trained for f in finals)
            how = protocol
            if len(finals) > 1:
                size, own = (difference_text(record.scale.turned(x), record.scale).lstrip("+") for x in (move, noise))
                how += f", mean of {len(finals)} seeds, whose scores move by {size}{record.scale.of_difference} "
                how += f"(root mean square) beside a noise of {own}"
            yield f"{arm} {_both(before, fmean(f.score for f in finals), record.scale)} ({how})"


def _both(before: float, after: float, scale: ScoreScale) -> str:
    return f"{score_text(before, scale)} as trained, {score_text(after, scale)} recalibrated"
