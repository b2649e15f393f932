"""What scores a candidate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

from autoprune.deprecation import moved_names
from autoprune.errors import ConfigError
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.rungs import Rungs
from autoprune.randomness import seeded, untouched
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score, as_score
from autoprune.texts import ScoreScale
from autoprune.training.integrity import Snapshot
from autoprune.training.scores import ANY, checked_score
from autoprune.training.watch import Stopped, Watch

Kind: TypeAlias = Literal["short", "training"]
"""How long an evaluation takes: about as long as scoring one network, or as long as training one."""

MOST_FOLLOWED = 8
"""Of how many of the best candidates an evaluator can be told."""


class Evaluator(ABC):
    """Widths to score, higher is better.

    Built as `Factory(factory, **settings)`. Same widths and seed give the same score; the base network, its training
    flags and the global random state are as they were afterwards.

    Attributes:
        kind: engines with several machines send the two kinds different ways; trainings can be watched.
        nests: settings that hold other evaluators: one, or a list of them. In a job each is a name, or a mapping of
            `name` and `settings`; the evaluator is given them built, and loaded before it prepares something itself. If
            one of them trains, so does this one.
        counts: the one of those settings whose last evaluator gives the scores; "" where they are its own.
        follows: how many of the best candidates so far it is told of, as the keyword `incumbents` of `evaluate`: their
            widths, the best one first, as they were when this one was proposed (fewer where there are fewer). 0: none,
            and no such keyword.
        relative: its scores are comparable within one run alone, also beside those of another budget: they are not
            shared by the runs of a family.
        scale: what its scores count, where that is not what the task's count; they may be any finite numbers then.
    """

    kind: Kind = "short"
    nests: tuple[str, ...] = ()
    counts: str = ""
    follows: int = 0
    relative: bool = False
    scale: ScoreScale | None = None

    @classmethod
    def rungs(cls, settings: Mapping[str, Any]) -> Rungs | None:
        """After which steps an evaluation with these settings may end; None: early stopping asks for shares of its own.

        One that has rungs is watched whatever its kind, and reports a score at each of them.
        """
        return None

    @classmethod  # noqa: B027 - most check what they are built with
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        """Check settings as a job gives them, before anything is trained.

        Raises:
            ConfigError: it cannot be built with them.
        """

    @abstractmethod
    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float | Score:
        """Score a member of the space on validation data.

        Args:
            widths: member of the space.
            seed: of everything random in the evaluation.
            full: score on all validation data, also where the search uses a part of it.
            watch: only evaluators of kind "training" or with rungs are given one, where they are watched. They hand it
                to `Task.train`, or report to it themselves, see `Watch.epoch`.

        Returns:
            The score as a plain number, or with what is known of its noise.
        """

    @classmethod
    def prepares(cls, settings: Mapping[str, Any]) -> bool:
        """Whether with these settings it has something to prepare."""
        return cls.prepare is not Evaluator.prepare

    def prepare(self, directory: Path, *, seed: int) -> None:  # noqa: B027 - most have nothing to prepare
        """Make what all evaluations of a run share, as files in `directory`; called once in a run, before any.

        Args:
            directory: empty, or as an attempt that was killed has left it: it may go on from there.
            seed: of everything random in it.
        """

    def load(self, directory: Path) -> None:  # noqa: B027
        """Take in what `prepare` has made; called wherever evaluations run, before the first one.

        Args:
            directory: holds those files, maybe on another machine and at another place; only read. It is there as long
                as the evaluator is used.
        """


@final
class Guarded(Evaluator):
    """An evaluator whose scores must be possible ones, and which must leave the base network as it was.

    Args:
        name: of the evaluator, for messages.
        make: factory -> the evaluator.
        factory: what it is built from.
        nested: place among the settings -> evaluators that it was given; they are prepared before it.

    Raises:
        RunError: building it changed the base network.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[CandidateFactory], Evaluator],
        factory: CandidateFactory,
        nested: Mapping[str, Evaluator] | None = None,
    ) -> None:
        self._nested = dict(nested or {})
        self._name, self._task, self._base = name, factory.task, Snapshot(factory.model)
        with untouched():
            self._inner = make(factory)
        self._check_base()
        trains = any(part.kind == "training" for part in (self._inner, *self._nested.values()))
        self.kind, self.scale = "training" if trains else "short", self._inner.scale
        self.follows = self._inner.follows

    def evaluate(
        self,
        widths: Widths,
        *,
        seed: int,
        full: bool = False,
        watch: Watch | None = None,
        incumbents: Sequence[Widths] = (),
    ) -> Score:
        """See `Evaluator.evaluate`; the global random state inside comes from the seed.

        Raises:
            EvaluationError: the score is not one that the task can give.
            RunError: the base network was changed.
            Stopped: the watch ended it.
        """
        watched: dict[str, Any] = {} if watch is None else {"watch": watch}
        if self.follows:
            watched["incumbents"] = tuple(incumbents[: self.follows])
        with seeded(seed):
            try:
                score: object = self._inner.evaluate(widths, seed=seed, full=full, **watched)
            except Stopped:
                self._check_base()
                raise
        self._check_base()
        given = as_score(score)
        possible = self._task.score_range if self._inner.scale is None else ANY
        return replace(given, value=checked_score(given.value, possible, what=self._what))

    def prepare(self, directory: Path, *, seed: int) -> None:
        """See `Evaluator.prepare`; each of the nested ones has a folder of its own, where it makes something.

        Raises:
            RunError: the base network was changed.
        """
        for place, part in self._nested.items():
            own = directory / place
            own.mkdir(exist_ok=True)
            part.prepare(own, seed=seed)
            if type(self._inner).prepare is not Evaluator.prepare:  # it may score by them
                part.load(own)
        with seeded(seed):
            self._inner.prepare(directory, seed=seed)
        self._check_base()

    def load(self, directory: Path) -> None:
        """See `Evaluator.load`."""
        for place, part in self._nested.items():
            part.load(directory / place)
        self._inner.load(directory)

    @property
    def _what(self) -> str:
        return f"evaluator {self._name!r}"

    def _check_base(self) -> None:
        self._base.check(
            f"{self._what} changed the base network",
            "let it work on factory.candidate(widths), which is its own, and only read factory.model",
        )


def check_counts(evaluator: str, *, least: int, **settings: int | None) -> None:
    """Check settings that are whole numbers; None stands for no limit.

    Raises:
        ConfigError: one of them is something else, or less than `least`.
    """
    for name, value in settings.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise ConfigError(
                f"evaluator {evaluator!r}: {name} must be at least {least}, a whole number, got {value!r}"
            )


def check_flags(evaluator: str, **settings: bool) -> None:
    """Check settings that are true or false; "no", a text, would count as true.

    Raises:
        ConfigError: one of them is something else.
    """
    for name, value in settings.items():
        if not isinstance(value, bool):
            raise ConfigError(f"evaluator {evaluator!r}: {name} must be true or false, without quotes, got {value!r}")


__getattr__ = moved_names(
    __name__,
    {
        "Workbench": "autoprune.evaluators.candidates:CandidateFactory",
        "make_evaluator": "autoprune.evaluators.making:make_evaluator",
        "check_evaluator": "autoprune.evaluators.making:check_evaluator",
        "kind_of": "autoprune.evaluators.making:kind_of",
        "prepares_something": "autoprune.evaluators.making:prepares_something",
        "Heirs": "autoprune.evaluators.candidates:Heirs",
    },
)
