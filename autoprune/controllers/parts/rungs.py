"""Trials of evaluators with rungs, as scores that one model can be fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from autoprune.controllers.base import Trial, TrialState
from autoprune.score_model.rungs import RungScores
from autoprune.space.groups import FloatArray

MOVED = 1e-3
"""Noise scale of a score that was moved: the deviation that is known of it holds all noise."""

_DIGITS = 9


@final
@dataclass(frozen=True, eq=False)
class JoinedScores:
    """What a model is fitted to.

    Attributes:
        widths: (M, G); those of a trial that has scores of the last rung and of the one before are there twice.
        scores: (M,) on the scale of the last rung; of a lower one before anything is known of the last.
        scale: (M,) noise scales.
        known: (M,) standard deviations of each score's own noise that are known.
        bias: (M,) standard deviations of what scores of lower rungs are off by, alike for like widths.
        on_last_scale: whether the scale is that of the last rung.
    """

    widths: FloatArray
    scores: FloatArray
    scale: FloatArray
    known: FloatArray
    bias: FloatArray
    on_last_scale: bool

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> JoinedScores:
        """Those of trials with a score."""
        rungs = RungScores(score_table(trials))
        who, scores, off = rungs.rows()
        own = np.array([trials[row].noise if trials[row].state is TrialState.COMPLETE else 0.0 for row in who])
        known = np.where(off > 0, halved(off), own if rungs.on_last_scale else 0.0)
        widths = np.array([trials[row].widths for row in who], dtype=np.float64)
        return cls(widths, scores, np.where(off > 0, MOVED, 1.0), known, halved(off), rungs.on_last_scale)


def halved(deviation: FloatArray) -> FloatArray:
    """The deviation of each of two alike and independent parts."""
    part: FloatArray = deviation / np.sqrt(2)
    return part


def score_table(trials: Sequence[Trial], shares: Sequence[float] | None = None) -> FloatArray:
    """(N, R) score of each trial at each rung, the end being the last; not a number where there is none.

    Args:
        trials: with a score.
        shares: at which the rungs lie; None: those that the trials have been at.
    """
    seen = [{round(share, _DIGITS): score for share, score in trial.partial} for trial in trials]
    for trial, scores in zip(trials, seen, strict=True):
        if trial.score is not None:
            scores[1.0 if trial.state is TrialState.COMPLETE else round(trial.fidelity, _DIGITS)] = trial.score
    places = sorted({1.0}.union(*seen) if shares is None else {round(share, _DIGITS) for share in (*shares, 1.0)})
    return np.array([[scores.get(place, np.nan) for place in places] for scores in seen]).reshape(-1, len(places))
