"""Replays: one controller on one problem, with the answers it would give after so many evaluations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.controllers import make_controller
from autoprune.controllers.base import Trial, TrialState
from autoprune.controllers.posterior import ScoreModel
from autoprune.space.groups import BoolArray, Widths
from search_problems.problem import Problem


@dataclass(frozen=True)
class Replay:
    """What one search found.

    Attributes:
        best: evaluations -> gain of the widths with the highest score.
        modelled: evaluations -> gain of those with the highest posterior mean, which is how `autoprune search` picks.
        expected: evaluations -> the two without the luck of single rows (`Experiment.expected`).
        milliseconds: per ask and tell.
    """

    best: dict[int, float]
    modelled: dict[int, float]
    expected: dict[int, tuple[float, float]]
    milliseconds: float


def replay(problem: Problem, controller: str, evaluations: Sequence[int], seed: int) -> Replay:
    """Search with one controller; uniform is the first evaluation of every search.

    Args:
        problem: what is searched.
        controller: a name that `make_controller` takes.
        evaluations: when the answer is asked for.
        seed: of the noise and of the controller.
    """
    experiment = problem.experiment(seed)
    proposer = make_controller(controller, problem.domain, seed=seed, settings={}, trials=max(evaluations))
    proposals, scores = [problem.uniform], [experiment.score(problem.uniform)]
    proposer.tell([_trial(0, proposals[0], scores[0])])
    best, modelled, expected, spent = {}, {}, {}, 0.0
    for number in range(1, max(evaluations) + 1):
        if number in evaluations:
            answers = _answers(problem, proposals)
            luckiest = proposals[int(np.argmax(np.where(answers, scores, -np.inf)))]
            probable = most_probable(problem, proposals, scores)
            best[number], modelled[number] = experiment.gain(luckiest), experiment.gain(probable)
            expected[number] = experiment.expected(luckiest), experiment.expected(probable)
        started = time.process_time()
        (widths,) = proposer.ask()
        score = experiment.score(widths)
        proposer.tell([_trial(number, widths, score)])
        spent += time.process_time() - started
        proposals.append(widths)
        scores.append(score)
    return Replay(best, modelled, expected, 1000 * spent / max(evaluations))


def most_probable(problem: Problem, proposals: Sequence[Widths], scores: Sequence[float]) -> Widths:
    """The answer with the highest posterior mean."""
    widths = np.array(proposals)
    mean = ScoreModel(problem.domain).fit(widths, np.array(scores)).mean(widths)
    return proposals[int(np.argmax(np.where(_answers(problem, proposals), mean, -np.inf)))]


def _answers(problem: Problem, proposals: Sequence[Widths]) -> BoolArray:
    """Which of the evaluated widths a search may answer with: those inside the budget, but not uniform ones.

    Some controllers walk from the full network to the budget. Uniform widths are what every answer is compared with.
    """
    inside: BoolArray = problem.domain.feasible(np.array(proposals))
    return inside & np.array([widths != problem.uniform for widths in proposals])


def _trial(number: int, widths: Widths, score: float) -> Trial:
    return Trial(number, widths, TrialState.COMPLETE, score)
