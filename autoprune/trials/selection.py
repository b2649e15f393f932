"""The winner is inferred: a posterior over all trials decides, not the luckiest score.

The best of many noisy scores is mostly luck (winner's curse); a smoothed model of the scores pools neighbours. Its best
mean is the best of many estimates again, so what counts is the mean lead over uniform widths less one standard
deviation of it, as one standard error is asked of a choice in Breiman et al. 1984, Classification and Regression Trees,
section 3.4.3: where scores say little, the answer stays near uniform.
The shortlist and the uniform baselines are scored once more on all validation data before the choice.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from autoprune.controllers.base import Trial, TrialState
from autoprune.controllers.parts.proposals import teachable
from autoprune.controllers.parts.rungs import MOVED, JoinedScores, halved
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import EvaluationError
from autoprune.score_model.posterior import ScoreModel
from autoprune.space.groups import Widths

_Scored = tuple[Widths, float, float]
"""Widths, score, and the standard error of it that is known."""

Posterior = dict[Widths, tuple[float, float]]
"""Widths -> (mean, standard deviation) of the smoothed score."""


def smooth(
    domain: BudgetedSpace,
    trials: Sequence[Trial],
    rescored: Mapping[Widths, float] | None = None,
    *,
    apart: bool = False,
) -> Posterior:
    """Fit the score model to all complete trials and re-scores, and return it at every width vector scored.

    Args:
        domain: space and budget.
        trials: of the search.
        rescored: widths -> score on all validation data.
        apart: re-scored networks inherited in another way than trials. Then scores of trials are moved to the scale of
            re-scores, and how far that is off adds to their noise; see `_moved`.

    Raises:
        EvaluationError: no trial has a score.
    """
    model, distinct = _fitted(domain, trials, rescored or {}, apart=apart)
    mean, sd = model.predict(np.array(distinct))
    return {w: (float(m), float(s)) for w, m, s in zip(distinct, mean, sd, strict=True)}


def probability_better(
    domain: BudgetedSpace,
    trials: Sequence[Trial],
    rescored: Mapping[Widths, float],
    winner: Widths,
    others: Mapping[str, Widths],
    *,
    apart: bool = False,
) -> dict[str, float]:
    """Name -> probability, by the smoothed model, that the winner's noise-free score is above that of the other."""
    model, _ = _fitted(domain, trials, rescored, apart=apart)
    return {name: model.probability_better(winner, widths) for name, widths in others.items() if widths != winner}


def sure_leads(
    domain: BudgetedSpace,
    trials: Sequence[Trial],
    baselines: Collection[Widths],
    rescored: Mapping[Widths, float] | None = None,
    *,
    apart: bool = False,
) -> dict[Widths, float]:
    """Widths -> by how much they are above the best baseline, less one standard deviation of that.

    Args:
        domain: space and budget.
        trials: of the search.
        baselines: uniform widths; where none has a score, means stand for leads.
        rescored: widths -> score on all validation data.
        apart: see `smooth`.

    Raises:
        EvaluationError: no trial has a score.
    """
    model, distinct = _fitted(domain, trials, rescored or {}, apart=apart)
    means = dict(zip(distinct, model.mean(np.array(distinct)).tolist(), strict=True))
    scored = [widths for widths in distinct if widths in baselines]
    if not scored:
        return means
    lead, sd = model.lead(np.array(distinct), max(scored, key=means.__getitem__))
    return dict(zip(distinct, (lead - sd).tolist(), strict=True))


def _fitted(
    domain: BudgetedSpace, trials: Sequence[Trial], rescored: Mapping[Widths, float], *, apart: bool
) -> tuple[ScoreModel, list[Widths]]:
    """The model of all scores, and the width vectors that have one."""
    complete = [(t.widths, t.score, t.noise) for t in trials if t.state is TrialState.COMPLETE and t.score is not None]
    if not complete:
        raise EvaluationError("no candidate has a score; the tracebacks of the failed trials are in the ledger")
    at_rungs = _of_rungs(trials)
    new = _measured_again(complete, rescored, apart=apart)
    if apart and new:
        at_rungs = _moved(complete, rescored, at_rungs)
        complete = _moved(complete, rescored)
    observed = [*complete, *new]
    widths, scores, known = zip(*observed, *at_rungs, strict=True)
    moved = np.arange(len(widths)) >= len(observed)
    noise = np.array(known)
    own, bias = np.where(moved, halved(noise), noise), np.where(moved, halved(noise), 0.0)
    scales = np.where(moved, MOVED, 1.0)
    model = ScoreModel(domain).fit(np.array(widths), np.array(scores), scales, known=own, bias=bias)
    return model, list(dict.fromkeys(widths[: len(observed)]))


def _measured_again(complete: Sequence[_Scored], rescored: Mapping[Widths, float], *, apart: bool) -> list[_Scored]:
    """The re-scores, but for those that are a trial's own score come back; counted twice, that would look exact.

    Evaluators may read all data in a trial, too, and not inherit as the job says; then all re-scores come back. A
    re-score is at most as noisy as the trial of its widths.
    """
    scores, noise = dict[Widths, list[float]](), dict[Widths, float]()
    for widths, score, own in complete:
        scores.setdefault(widths, []).append(score)
        noise[widths] = own
    usual = float(np.median([own for _, _, own in complete]))
    again = {
        w for w, score in rescored.items() if any(math.isclose(score, one, rel_tol=1e-9) for one in scores.get(w, ()))
    }
    if apart and again != rescored.keys():  # equal by chance: they inherited in two ways
        again = set()
    return [(w, score, noise.get(w, usual)) for w, score in rescored.items() if w not in again]


def _of_rungs(trials: Sequence[Trial]) -> list[_Scored]:
    """Scores of lower rungs, on the scale of complete trials and with all that they may be off by.

    They help the model, and choose nobody: the winner has a score of the last rung.
    """
    if not any(trial.rungs for trial in trials):
        return []
    joined = JoinedScores.of([trial for trial, _ in teachable(trials, at_rungs=True)])
    if not joined.on_last_scale:  # too few complete ones
        return []
    off = np.hypot(joined.known, joined.bias)
    return [
        (tuple(map(int, joined.widths[row])), float(joined.scores[row]), float(off[row]))
        for row in np.flatnonzero(joined.bias > 0)
    ]


def _moved(
    complete: list[_Scored], rescored: Mapping[Widths, float], others: list[_Scored] | None = None
) -> list[_Scored]:
    """Scores of trials, or others of their scale, on the scale of re-scores, by the line through widths that have both.

    Reconstruction brings back more where more was lost, so the two do not differ by a constant. A line needs four
    points and has to ascend; else it is the mean difference. The standard deviation of what is left adds to the noise.
    """
    both = [(score, rescored[widths]) for widths, score, _ in complete if widths in rescored]
    moving = complete if others is None else others
    if not both:
        return moving
    x, y = np.array(both).T
    slope = 1.0
    if len(both) >= 4 and np.ptp(x) > 0:
        steepness = float(np.polyfit(x, y, 1)[0])
        slope = steepness if steepness > 0 else 1.0
    moved = slope * (x - x.mean()) + y.mean()
    left = len(both) - (2 if slope != 1.0 else 1)
    spread = float(np.sqrt(((y - moved) ** 2).sum() / left)) if left > 0 else 0.0
    return [
        (widths, float(slope * (score - x.mean()) + y.mean()), float(np.hypot(slope * noise, spread)))
        for widths, score, noise in moving
    ]


def shortlist(
    leads: Mapping[Widths, float], k: int, domain: BudgetedSpace, baselines: Collection[Widths] = ()
) -> list[Widths]:
    """The k width vectors inside the budget with the highest lead, best first; equal ones as in the trials.

    Some controllers walk from the full network down to the budget and score what is above it.

    Args:
        leads: of `sure_leads`.
        k: how many.
        domain: the space under its budget.
        baselines: uniform widths. The winner is compared with them in any case, so the search is to name the best
            challenger; one of them is only listed where there is no other.
    """
    inside = [widths for widths in leads if domain.feasible(np.array([widths]))[0]]
    challengers = [widths for widths in inside if widths not in baselines]
    return sorted(challengers or inside, key=lambda widths: -leads[widths])[:k]


def median_trial(trials: Sequence[Trial]) -> Trial | None:
    """The complete trial with the median score (the lower one of two), None where there is none."""
    complete = [t for t in trials if t.score is not None]
    ordered = sorted(complete, key=lambda trial: (trial.score, trial.number))
    return ordered[(len(ordered) - 1) // 2] if ordered else None
