"""Scores in rungs: cheap ones for many candidates, dear ones for those that are worth it.

Successive halving over fidelities of different kinds (Jamieson and Talwalkar 2016, arXiv 1502.07943, over one kind;
asynchronously: Li et al. 2020, arXiv 1810.05934). Who goes on is decided by the engine that runs the search, which
knows the other candidates: `autoprune.engines.rungs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, final

from autoprune.config.parts import NamedPart
from autoprune.errors import ConfigError
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.making import rungs_of
from autoprune.evaluators.rungs import Rungs, shares
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score
from autoprune.training.watch import State, Watch

_PARTS = 1_000_000
"""Of each step, in which its own epochs are reported."""


@final
class EvaluatorChain(Evaluator):
    """Score a candidate by one evaluator after the other; after each but the last one it may end.

    What counts are the scores of the last step: the winner, the baselines and whatever is scored on all validation data
    come from it. Those of earlier steps, of any scale, say who goes on, and teach the score model as far as they have
    been found to agree with later ones.

    Args:
        factory: what candidates are made from.
        steps: at least two evaluators, the cheapest first.
        keep: share of the search's proposals that go on, for each step but the last; a third each where it is left out.
            Uniform widths, one-shot rules and random baselines always do, and so does whoever is better than all that
            it is compared with: of a very small share more go on.

    Raises:
        ConfigError: fewer than two steps, or shares that are not one in (0, 1] for each step but the last.
    """

    nests = ("steps",)
    counts = "steps"

    def __init__(self, factory: object, *, steps: Sequence[Evaluator], keep: Sequence[float] | None = None) -> None:
        Rungs(("",) * len(steps), shares(keep, len(steps)))
        self._steps = tuple(steps)
        self.scale = self._steps[-1].scale
        self.follows = max(step.follows for step in self._steps)

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """See `Evaluator.check_settings`; of a chain inside of it nobody would be asked who goes on."""
        for place, step in enumerate(settings["steps"]):
            part = NamedPart.of(step, f"evaluator.settings.steps[{place}]")
            if rungs_of(part.name, part.settings) is not None:
                raise ConfigError(
                    f"evaluator 'chain': steps[{place}] is {part.name!r}, which has steps of its own; write them into "
                    f"this list in its place, and their shares into keep"
                )

    @classmethod
    def rungs(cls, settings: Mapping[str, Any]) -> Rungs:
        """See `Evaluator.rungs`."""
        return Rungs.of(settings)

    def evaluate(
        self,
        widths: Widths,
        *,
        seed: int,
        full: bool = False,
        watch: Watch | None = None,
        incumbents: Sequence[Widths] = (),
    ) -> float | Score:
        """See `Evaluator.evaluate`; where nobody asks for the scores of the steps before, only the last one is done."""
        *before, last = self._steps
        told = partial(_evaluated, widths=widths, seed=seed, incumbents=incumbents)
        if full or watch is None:
            return told(last, full=full, watch=watch)
        kept = watch.restore() or {"step": 0, "inside": None}
        begun, n = int(kept["step"]), len(self._steps)
        for number, step in enumerate(before):
            if number < begun:
                continue
            within = StepWatch(watch, number, n, kept["inside"] if number == begun else None)
            score = float(told(step, watch=within))
            watch.epoch((number + 1) * _PARTS, n * _PARTS, _constant(score), _beginning_of(number + 1))
        return told(last, watch=StepWatch(watch, n - 1, n, kept["inside"] if begun == n - 1 else None))


@final
class StepWatch(Watch):
    """One step's view of the watch of the whole evaluation: its states are kept, its scores are nobody's business.

    Args:
        outer: of the whole.
        number: of the step, from 0.
        steps: how many there are.
        state: which an earlier attempt at this step has offered last.
    """

    def __init__(self, outer: Watch, number: int, steps: int, state: State | None) -> None:
        self._outer, self._number, self._steps, self._state = outer, number, steps, state

    def restore(self) -> State | None:
        """See `Watch.restore`."""
        return self._state

    def epoch(self, done: int, total: int, score: Callable[[], float] | None, state: Callable[[], State]) -> None:
        """See `Watch.epoch`; the end of a step is reported by the chain."""
        if done >= total:
            return
        share = self._number * _PARTS + max(1, _PARTS * done // total)
        self._outer.epoch(share, self._steps * _PARTS, None, lambda: {"step": self._number, "inside": dict(state())})


def _evaluated(
    step: Evaluator,
    *,
    widths: Widths,
    seed: int,
    incumbents: Sequence[Widths],
    full: bool = False,
    watch: Watch | None = None,
) -> float | Score:
    told: dict[str, Any] = {"watch": watch} if watch is not None and step.kind == "training" else {}
    if step.follows:
        told["incumbents"] = incumbents
    return step.evaluate(widths, seed=seed, full=full, **told)


def _constant(score: float) -> Callable[[], float]:
    return lambda: score


def _beginning_of(step: int) -> Callable[[], State]:
    return lambda: {"step": step, "inside": None}
