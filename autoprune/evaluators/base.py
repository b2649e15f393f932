"""What scores a candidate, and the things every evaluator works with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, final

from torch import nn

from autoprune.config.parts import ChosenPart
from autoprune.config.settings import bind
from autoprune.deprecation import moved_names
from autoprune.errors import ConfigError
from autoprune.evaluators import EVALUATORS
from autoprune.inherit import DEFAULT
from autoprune.randomness import seeded, untouched
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import Ranking, Slicer
from autoprune.space.groups import SearchSpace, Widths
from autoprune.tasks.base import Task
from autoprune.training.integrity import Snapshot
from autoprune.training.scores import checked_score
from autoprune.training.watch import Watch


@final
@dataclass(frozen=True, slots=True, eq=False)
class CandidateFactory:
    """What candidates are made from: the base network, its space, the order of its channels, and the task.

    Attributes:
        model: the trained base network, in the form of the space (module or graph); only read.
        space: its space.
        ranking: per group, the rank of each channel.
        task: trains and scores networks.
        base_epochs: how long the base network was trained.
        inherit: what is done to the weights of cut networks that are scored without a training, in order.
    """

    model: nn.Module
    space: SearchSpace
    ranking: Ranking
    task: Task
    base_epochs: int
    inherit: tuple[ChosenPart, ...] = DEFAULT
    _slicer: Slicer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_slicer", Slicer(self.model, self.space, self.ranking))

    def candidate(self, widths: Widths) -> nn.Module:
        """A new network of these widths with inherited weights."""
        return self._slicer(widths)

    def cut(self, widths: Widths) -> Cut:
        """As `candidate`, with the indices that survived."""
        return self._slicer.cut(widths)


Kind: TypeAlias = Literal["short", "training"]
"""How long an evaluation takes: about as long as scoring one network, or as long as training one."""


class Evaluator(ABC):
    """Widths to score, higher is better.

    Built as `Factory(factory, **settings)`. Same widths and seed give the same score; the base network, its training
    flags and the global random state are as they were afterwards.

    Attributes:
        kind: engines with several machines send the two kinds different ways; trainings can be watched.
    """

    kind: Kind = "short"

    @abstractmethod
    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        """Score a member of the space on validation data.

        Args:
            widths: member of the space.
            seed: of everything random in the evaluation.
            full: score on all validation data, also where the search uses a part of it.
            watch: of the training; only evaluators of kind "training" are given one, and hand it to `Task.train`.
        """


@final
class Guarded(Evaluator):
    """An evaluator whose scores must be possible ones, and which must leave the base network as it was.

    Args:
        name: of the evaluator, for messages.
        make: factory -> the evaluator.
        factory: what it is built from.

    Raises:
        RunError: building it changed the base network.
    """

    def __init__(self, name: str, make: Callable[[CandidateFactory], Evaluator], factory: CandidateFactory) -> None:
        self._name, self._task, self._base = name, factory.task, Snapshot(factory.model)
        with untouched():
            self._inner = make(factory)
        self._check_base()
        self.kind = self._inner.kind

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        """See `Evaluator.evaluate`; the global random state inside comes from the seed.

        Raises:
            EvaluationError: the score is not one that the task can give.
            RunError: the base network was changed.
        """
        watched = {} if watch is None else {"watch": watch}
        with seeded(seed):
            score: object = self._inner.evaluate(widths, seed=seed, full=full, **watched)
        self._check_base()
        return checked_score(score, self._task.score_range, what=f"evaluator {self._name!r}")

    def _check_base(self) -> None:
        self._base.check(
            f"evaluator {self._name!r} changed the base network",
            "let it work on factory.candidate(widths), which is its own, and only read factory.model",
        )


def check_counts(evaluator: str, *, least: int, **settings: int | None) -> None:
    """Check settings that are whole numbers; None stands for no limit.

    Raises:
        ConfigError: one of them is something else, or less than `least`.
    """
    for name, value in settings.items():
        if value is not None and (not isinstance(value, int) or value < least):
            raise ConfigError(
                f"evaluator {evaluator!r}: {name} must be at least {least}, a whole number, got {value!r}"
            )


def make_evaluator(name: str, factory: CandidateFactory, settings: Mapping[str, Any]) -> Evaluator:
    """Build an evaluator by name; see `Guarded` for what it may not do.

    Raises:
        RegistryError: unknown name.
        ConfigError: a setting that the evaluator does not have, or a value out of range.
    """
    return Guarded(name, bind(EVALUATORS, name, settings), factory)


def check_evaluator(name: str, settings: Mapping[str, Any]) -> None:
    """Check name and names of settings before anything is built; raises what `make_evaluator` raises."""
    bind(EVALUATORS, name, settings)


__getattr__ = moved_names(__name__, {"Workbench": f"{__name__}:CandidateFactory"})
