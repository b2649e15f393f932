"""Several scores at once: the mean of what evaluators say, so that none of them decides alone.

Abdelfattah et al. 2021, Zero-Cost Proxies for Lightweight NAS, arXiv 2101.08134, let three proxies vote; Krishnakumar
et al. 2022, NAS-Bench-Suite-Zero, arXiv 2210.03230, show that proxies know different things. Here scores are
standardised and averaged, as a vote among two decides nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np

from autoprune.config.parts import NamedPart
from autoprune.errors import ConfigError, EvaluationError, RunError, is_interrupted
from autoprune.evaluators.base import Evaluator, Kind
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.making import kind_of, rungs_of
from autoprune.evaluators.score_scales import ScoreScales
from autoprune.files import write_whole
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score, as_score
from autoprune.texts import ScoreScale, first_line
from autoprune.training.watch import State, Watch

_FILE, _KNOWN = "scales.json", "drawn.jsonl"
_DRAWN, _LEAST = 10, 3
"""How many networks say how far scores vary, where the factory gives none; and how many of them must have scores."""


@final
class Blend(Evaluator):
    """Score a candidate by the mean of standardised scores.

    A score of a part counts in standard deviations of that part's scores of some networks that are drawn at random on
    the budget, once, when the run begins; 0 is their mean. Scores on all validation data are standardised by scores on
    all validation data. No deviation is less than the part's own standard error, where it tells one, so that noise
    alone does not decide. A part that gives all of them the same score, and tells no error, changes nothing.

    It guards against the part that misleads on a task more than it adds to the one that does not: see
    `benchmarks/rank_fidelity.py`. The noise of a score is known where every part tells its own.

    Args:
        factory: what candidates are made from.
        parts: at least two evaluators, of which at most one trains and none scores in steps.
        weights: of each part, above 0; equal where they are left out.

    Raises:
        ConfigError: fewer than two parts, several that train, one that scores in steps, or weights that are none.
    """

    nests = ("parts",)
    scale = ScoreScale("blend of scores")
    relative = True

    def __init__(
        self, factory: CandidateFactory, *, parts: Sequence[Evaluator], weights: Sequence[float] | None = None
    ) -> None:
        self._factory, self._parts = factory, tuple(parts)
        self._weights = _shares(weights, [part.kind for part in parts])
        self.follows = max(part.follows for part in parts)
        self._scales: dict[bool, ScoreScales] = {}

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """See `Evaluator.check_settings`."""
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
            EvaluationError: fewer than three of them can be scored, or all parts give all of them the same score.
        """
        drawn = self._factory.drawn or _members(self._factory, seed)
        place = directory / _KNOWN
        known = [json.loads(line) for line in place.read_text().splitlines()] if place.is_file() else []
        for number, widths in enumerate(drawn[len(known) :], len(known)):
            known.append(self._row(widths, seed + number))
            write_whole(place, "".join(f"{json.dumps(row)}\n" for row in known).encode())
        rows = [row for row in known if "error" not in row]
        if len(rows) < _LEAST:
            why = next((row["error"] for row in reversed(known) if "error" in row), "no more are there")
            raise EvaluationError(
                f"evaluator 'blend': of {len(drawn)} networks drawn at random to learn how far scores vary, "
                f"{len(rows)} could be scored, and {_LEAST} have to be: {why}"
            )
        scales = {
            which: ScoreScales.of(*np.moveaxis(np.array([row[which] for row in rows], dtype=np.float64), 2, 0))
            for which in ("part", "all")
        }
        if len(set(drawn)) > 1 and not any(scales["part"].deviations):
            raise EvaluationError(
                f"evaluator 'blend': each of its parts gives the same score to all of {len(rows)} networks drawn at "
                f"random, {scales['part'].means}; choose parts that tell them apart, or another budget"
            )
        write_whole(directory / _FILE, json.dumps({which: asdict(one) for which, one in scales.items()}).encode())

    def _row(self, widths: Widths, seed: int) -> dict[str, Any]:
        """What the parts say of a drawn network: score and standard error on a part and on all validation data.

        A training is done once, for both.
        """
        try:
            row = {"part": self._told(widths, seed=seed)}
            trains = any(part.kind == "training" for part in self._parts)
            row["all"] = row["part"] if trains else self._told(widths, seed=seed, full=True)
        except RunError:
            raise
        except Exception as error:
            if is_interrupted(error):
                raise
            return {"error": first_line(error) or type(error).__name__}
        return {which: [[float(one), one.standard_error] for one in scores] for which, scores in row.items()}

    def load(self, directory: Path) -> None:
        """Take in how far scores vary."""
        kept = json.loads((directory / _FILE).read_text())
        self._scales = {
            which == "all": ScoreScales(tuple(one["means"]), tuple(one["deviations"])) for which, one in kept.items()
        }

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
        if not self._scales:
            raise EvaluationError("evaluator 'blend' has no scales yet: call prepare and load, as a run does, first")
        scores = self._told(widths, seed=seed, full=full, watch=watch, incumbents=incumbents)
        value = float(sum(self._turned(place, full, float(score)) for place, score in enumerate(scores)))
        counted = [(self._unit(place, full), score) for place, score in enumerate(scores) if self._unit(place, full)]
        errors = [unit * score.standard_error for unit, score in counted if score.standard_error is not None]
        if not errors or len(errors) < len(counted):
            return Score(value)
        return Score(value, math.hypot(*errors), paired=all(score.paired for _, score in counted))

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
                rest = sum(self._turned(other, full, float(score)) for other, score in scores.items())
                told["watch"] = _Blended(watch, partial(self._beside, rest, place, full))
            if part.follows:
                told["incumbents"] = tuple(incumbents[: part.follows])
            scores[place] = as_score(part.evaluate(widths, seed=seed, full=full, **told))
        return [scores[place] for place in range(len(self._parts))]

    def _beside(self, rest: float, place: int, full: bool, score: float) -> float:
        return rest + self._turned(place, full, score)

    def _turned(self, place: int, full: bool, score: float) -> float:
        return self._unit(place, full) * (score - self._scales[full].means[place])

    def _unit(self, place: int, full: bool) -> float:
        """What one unit of a part's score is worth."""
        deviation = self._scales[full].deviations[place]
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
    numbers = list(given) if isinstance(given, list | tuple) and all(map(_is_weight, given)) else []
    if len(numbers) != len(kinds) or not math.isfinite(sum(numbers)):
        raise ConfigError(
            f"evaluator 'blend': weights must be a list of numbers above 0, one for each of the {len(kinds)} parts, "
            f"got {weights!r}"
        )
    return tuple(number / sum(numbers) for number in numbers)


def _is_weight(given: object) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and 0 < given < math.inf


def _members(factory: CandidateFactory, seed: int) -> list[Widths]:
    """Members of the space, for a factory that knows no budget."""
    rng = np.random.default_rng(seed)
    return [tuple(int(rng.choice(group.choices)) for group in factory.space.groups) for _ in range(_DRAWN)]
