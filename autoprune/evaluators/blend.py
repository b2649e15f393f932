"""Several scores at once: the mean of what evaluators say that err in different ways.

Abdelfattah et al. 2021, Zero-Cost Proxies for Lightweight NAS, arXiv 2101.08134, let three proxies vote; Krishnakumar
et al. 2022, NAS-Bench-Suite-Zero, arXiv 2210.03230, show that proxies know different things. Here scores are
standardised and averaged, as a vote among two decides nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np

from autoprune.config.parts import NamedPart
from autoprune.errors import ConfigError, EvaluationError
from autoprune.evaluators.base import Evaluator, Kind
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.making import kind_of, rungs_of
from autoprune.space.groups import FloatArray, Widths
from autoprune.tasks.score import Score, as_score
from autoprune.texts import ScoreScale
from autoprune.training.watch import State, Watch

_FILE = "scales.json"
_DRAWN, _LEAST = 10, 3
"""How many networks say how far scores vary, where the factory gives none; and how many of them must have scores."""


@final
class Blend(Evaluator):
    """Score a candidate by the mean of standardised scores.

    A score of a part counts in standard deviations of that part's scores of some networks that are drawn at random on
    the budget, once, when the run begins; 0 is their mean. A part that gives all of them the same score says nothing,
    and changes nothing. A refitted network's accuracy before training and the logarithms of its widths, for example,
    err in different ways: see `benchmarks/rank_fidelity.py`.

    Args:
        factory: what candidates are made from.
        parts: at least two evaluators, of which at most one trains and none scores in steps.
        weights: of each part, at least 0; equal where they are left out.

    Raises:
        ConfigError: fewer than two parts, several that train, one that scores in steps, or weights that are none.
    """

    nests = ("parts",)
    scale = ScoreScale("blend of scores")

    def __init__(
        self, factory: CandidateFactory, *, parts: Sequence[Evaluator], weights: Sequence[float] | None = None
    ) -> None:
        self._factory, self._parts = factory, tuple(parts)
        self._weights = _shares(weights, [part.kind for part in parts])
        self.follows = max(part.follows for part in parts)
        self._means = self._deviations = np.empty(0)

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """See `Evaluator.check`."""
        parts = settings.get("parts")
        if not isinstance(parts, list | tuple):
            raise ConfigError(f"evaluator 'blend': parts must be a list of at least two evaluators, got {parts!r}")
        chosen = [NamedPart.of(part, f"evaluator.settings.parts[{i}]") for i, part in enumerate(parts)]
        for place, part in enumerate(chosen):
            if rungs_of(part.name, part.settings) is not None:
                raise ConfigError(
                    f"evaluator 'blend': parts[{place}] is {part.name!r}, which scores in steps after which candidates "
                    f"end; make the blend the last step of it instead"
                )
        _shares(settings.get("weights"), [kind_of(part.name, part.settings) for part in chosen])

    @classmethod
    def prepares(cls, settings: Mapping[str, Any]) -> bool:
        """See `Evaluator.prepares`."""
        return True

    def prepare(self, directory: Path, *, seed: int) -> None:
        """Score networks that are drawn at random, and write how far each part's scores vary.

        Raises:
            EvaluationError: fewer than three of them can be scored.
        """
        drawn = self._factory.drawn or _members(self._factory, seed)
        rows, errors = list[list[float]](), list[str]()
        for number, widths in enumerate(drawn):
            try:
                rows.append([float(score) for score in self._told(widths, seed=seed + number)])
            except EvaluationError as error:
                errors.append(str(error))
        if len(rows) < _LEAST:
            raise EvaluationError(
                f"evaluator 'blend': of {len(drawn)} networks drawn at random to learn how far scores vary, "
                f"{len(rows)} could be scored, and {_LEAST} have to be: {errors[-1] if errors else 'no more are there'}"
            )
        scores = np.array(rows)
        kept = {"means": scores.mean(axis=0).tolist(), "deviations": _deviations(scores).tolist()}
        (directory / _FILE).write_text(json.dumps(kept))

    def load(self, directory: Path) -> None:
        """Take in how far scores vary."""
        kept = json.loads((directory / _FILE).read_text())
        self._means, self._deviations = np.array(kept["means"]), np.array(kept["deviations"])

    def evaluate(
        self,
        widths: Widths,
        *,
        seed: int,
        full: bool = False,
        watch: Watch | None = None,
        incumbents: Sequence[Widths] = (),
    ) -> Score:
        """See `Evaluator.evaluate`; intermediate scores of a training count beside those of the other parts.

        Raises:
            EvaluationError: it was never loaded.
        """
        if not len(self._means):
            raise EvaluationError("evaluator 'blend' has no scales yet: call prepare and load, as a run does, first")
        scores = self._told(widths, seed=seed, full=full, watch=watch, incumbents=incumbents)
        known = [
            (self._unit(place) * score.standard_error, score.paired)
            for place, score in enumerate(scores)
            if score.standard_error is not None
        ]
        value = float(sum(self._turned(place, float(score)) for place, score in enumerate(scores)))
        if not known:
            return Score(value)
        return Score(value, math.hypot(*(error for error, _ in known)), paired=all(paired for _, paired in known))

    def _told(
        self,
        widths: Widths,
        *,
        seed: int,
        full: bool = False,
        watch: Watch | None = None,
        incumbents: Sequence[Widths] = (),
    ) -> list[Score]:
        """What each part says; the one that trains comes last, as only it may be stopped."""
        scores: dict[int, Score] = {}
        for place in sorted(range(len(self._parts)), key=lambda place: self._parts[place].kind == "training"):
            part, told = self._parts[place], dict[str, Any]()
            if part.kind == "training" and watch is not None:
                rest = sum(self._turned(other, float(score)) for other, score in scores.items())
                told["watch"] = _Blended(watch, partial(self._beside, rest, place))
            if part.follows:
                told["incumbents"] = tuple(incumbents[: part.follows])
            scores[place] = as_score(part.evaluate(widths, seed=seed, full=full, **told))
        return [scores[place] for place in range(len(self._parts))]

    def _beside(self, rest: float, place: int, score: float) -> float:
        return rest + self._turned(place, score)

    def _turned(self, place: int, score: float) -> float:
        return self._unit(place) * (score - float(self._means[place]))

    def _unit(self, place: int) -> float:
        """What one unit of a part's score is worth."""
        deviation = float(self._deviations[place])
        return self._weights[place] / deviation if deviation else 0.0


@final
class _Blended(Watch):
    """Hears of a training, and passes its scores on as they count.

    Args:
        outer: who is told.
        turned: score of the training -> of all parts.
    """

    def __init__(self, outer: Watch, turned: Callable[[float], float]) -> None:
        self._outer, self._turned = outer, turned

    def restore(self) -> State | None:
        """See `Watch.restore`."""
        return self._outer.restore()

    def epoch(self, done: int, total: int, score: Callable[[], float] | None, state: Callable[[], State]) -> None:
        """See `Watch.epoch`."""
        self._outer.epoch(done, total, None if score is None else lambda: self._turned(score()), state)


def _shares(weights: object, kinds: Sequence[Kind]) -> tuple[float, ...]:
    """What the parts of these kinds weigh, one in all.

    Raises:
        ConfigError: see `Blend`.
    """
    if len(kinds) < 2:
        raise ConfigError(
            f"evaluator 'blend': parts must be a list of at least two evaluators, got {len(kinds)}; a single one is "
            f"named as the evaluator itself"
        )
    if (trained := kinds.count("training")) > 1:
        raise ConfigError(
            f"evaluator 'blend': at most one of its parts may train, got {trained}; leave one of them, or choose a "
            f"chain, whose last step decides"
        )
    given = [1.0] * len(kinds) if weights is None else weights
    whole = sum(given) if isinstance(given, list | tuple) and all(map(_is_weight, given)) else 0.0
    if not isinstance(given, list | tuple) or len(given) != len(kinds) or not 0 < whole < math.inf:
        raise ConfigError(
            f"evaluator 'blend': weights must be a list of numbers of at least 0, not all 0, one for each of the "
            f"{len(kinds)} parts, got {weights!r}"
        )
    return tuple(weight / whole for weight in given)


def _is_weight(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given < math.inf


def _deviations(scores: FloatArray) -> FloatArray:
    """Of each column; 0 where it is constant but for rounding."""
    found: FloatArray = scores.std(axis=0)
    return np.where(found > 1e-9 * np.abs(scores).max(axis=0), found, 0.0)


def _members(factory: CandidateFactory, seed: int) -> list[Widths]:
    """Members of the space, for a factory that knows no budget."""
    rng = np.random.default_rng(seed)
    return [tuple(int(rng.choice(group.choices)) for group in factory.space.groups) for _ in range(_DRAWN)]
