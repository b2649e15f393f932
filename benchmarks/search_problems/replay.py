"""Replays: one controller on one problem, with the answers it would give after so many evaluations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from autoprune.controllers import make_controller
from autoprune.controllers.base import Trial, TrialState
from autoprune.space.groups import BoolArray, Widths
from autoprune.trials.selection import sure_leads
from search_problems.problem import Experiment, Problem

HIGHEST, PROBABLE = "highest score", "surest lead"
"""The two answers of a search: the usual one, and how `autoprune search` picks its own."""


@dataclass(frozen=True)
class Answer:
    """Widths that a search answers with.

    Attributes:
        widths: never those of uniform pruning, unless nothing else was evaluated.
        gain: over uniform pruning.
        expected: the same without the luck of single rows (`Experiment.expected`).
    """

    widths: Widths
    gain: float
    expected: float


Answers: TypeAlias = dict[int, dict[str, Answer]]
"""Evaluations -> `HIGHEST` and `PROBABLE` -> answer."""


@dataclass(frozen=True)
class Replay:
    """What one search found.

    Attributes:
        answers: after so many evaluations.
        milliseconds: of processor time per ask and tell.
    """

    answers: Answers
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
    answers, spent = dict[int, dict[str, Answer]](), 0.0
    while True:
        if len(scores) in evaluations:
            answers[len(scores)] = _answers(problem, experiment, proposals, scores)
        if len(scores) == max(evaluations):
            return Replay(answers, 1000 * spent / max(1, len(scores) - 1))
        started = time.process_time()
        (widths,) = proposer.ask()
        score = experiment.score(widths)
        proposer.tell([_trial(len(scores), widths, score)])
        spent += time.process_time() - started
        proposals.append(widths)
        scores.append(score)


def _answers(
    problem: Problem, experiment: Experiment, proposals: Sequence[Widths], scores: Sequence[float]
) -> dict[str, Answer]:
    eligible = _eligible(problem, proposals)
    trials = [_trial(number, *scored) for number, scored in enumerate(zip(proposals, scores, strict=True))]
    leads = sure_leads(problem.domain, trials, [problem.uniform])
    found = {}
    for name, values in ((HIGHEST, scores), (PROBABLE, [leads[widths] for widths in proposals])):
        best = proposals[int(np.argmax(np.where(eligible, values, -np.inf)))]
        found[name] = Answer(best, experiment.gain(best), experiment.expected(best))
    return found


def _eligible(problem: Problem, proposals: Sequence[Widths]) -> BoolArray:
    """Which of the evaluated widths a search may answer with: those inside the budget, but not uniform ones.

    Some controllers walk from the full network to the budget. Uniform widths are what every answer is compared with.
    """
    inside: BoolArray = problem.domain.feasible(np.array(proposals))
    return inside & np.array([widths != problem.uniform for widths in proposals])


def _trial(number: int, widths: Widths, score: float) -> Trial:
    return Trial(number, widths, TrialState.COMPLETE, score)
