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
        widths: (N, G).
        scores: (N,) on the scale of the last rung; of a lower one before anything is known of the last.
        scale: (N,) noise scales.
        known: (N,) standard deviations of the noise that are known.
        rungs: the scores at all rungs.
    """

    widths: FloatArray
    scores: FloatArray
    scale: FloatArray
    known: FloatArray
    rungs: RungScores

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> JoinedScores:
        """Those of trials with a score, row by row."""
        rungs = RungScores(score_table(trials))
        scores, deviations = rungs.joined()
        moved = rungs.reached < rungs.top
        own = np.array([trial.noise if trial.state is TrialState.COMPLETE else 0.0 for trial in trials])
        known = np.where(moved, deviations, own if rungs.on_last_scale else 0.0)
        widths = np.array([trial.widths for trial in trials], dtype=np.float64)
        return cls(widths, scores, np.where(moved, MOVED, 1.0), known, rungs)


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
