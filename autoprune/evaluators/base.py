"""What scores a candidate, and the things every evaluator works with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, final

from torch import nn

from autoprune.config.parts import ChosenPart, NamedPart, PartOptions
from autoprune.config.settings import bind
from autoprune.deprecation import moved_names
from autoprune.errors import ConfigError, RegistryError
from autoprune.evaluators import EVALUATORS
from autoprune.inherit import DEFAULT
from autoprune.inherit.base import Chain, Statistics
from autoprune.randomness import seeded, untouched
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import Ranking, Slicer
from autoprune.space.groups import SearchSpace, Widths
from autoprune.tasks.base import Task
from autoprune.tasks.score import Score, as_score
from autoprune.training.integrity import Snapshot
from autoprune.training.scores import checked_score
from autoprune.training.watch import Stopped, Watch


@final
@dataclass(frozen=True, slots=True, eq=False)
class CandidateFactory:
    """What candidates are made from: the base network, its space, the order of its channels, and the task.

    Attributes:
        model: the trained base network, in the form of the space (module or graph); only read.
        space: its space.
        ranking: per group, the rank of each channel.
        task: trains and scores networks, compared with `model` where its measure compares.
        base_epochs: how long the base network was trained.
        inherit: what is done to the weights of cut networks, in order.
        final_inherit: the same for networks that are compared at the end; None: as `inherit`.
    """

    model: nn.Module
    space: SearchSpace
    ranking: Ranking
    task: Task
    base_epochs: int
    inherit: tuple[ChosenPart, ...] = DEFAULT
    final_inherit: tuple[ChosenPart, ...] | None = None
    _slicer: Slicer = field(init=False, repr=False)
    _heirs: dict[str, Heirs] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", self.task.compared_with(self.model))
        object.__setattr__(self, "_slicer", Slicer(self.model, self.space, self.ranking))

    def candidate(self, widths: Widths) -> nn.Module:
        """A new network of these widths with inherited weights."""
        return self._slicer(widths)

    def cut(self, widths: Widths) -> Cut:
        """As `candidate`, with the indices that survived."""
        return self._slicer.cut(widths)

    def heirs(self, use: Use) -> Heirs:
        """Makes networks whose weights went through the job's inheritance, the one place where that is done.

        What is gathered for it is gathered once for each use.

        Args:
            use: "search" for candidates; "final" for networks that are compared at the end; "training" for those of
                them that a training goes on from.
        """
        chosen = self.inherit if use == "search" or self.final_inherit is None else self.final_inherit
        if use != "training" and chosen is self.inherit:
            use = "search"
        if use not in self._heirs:
            chain = Chain(chosen)
            if use == "training" and chosen is self.inherit:  # a training makes running statistics of its own
                chain = chain.before_training()
            statistics = Statistics(partial(self.task.calibration_inputs, seed=0), self.task.device)
            self._heirs[use] = Heirs(self, chain, statistics)
        return self._heirs[use]

    def calibrated(self, batches: int) -> CandidateFactory:
        """The same, recalibrating batch norms on so many batches wherever a list does not say on how many."""
        inherit = _calibrated(self.inherit, batches)
        final = None if self.final_inherit is None else _calibrated(self.final_inherit, batches)
        if (inherit, final) == (self.inherit, self.final_inherit):
            return self
        return replace(self, inherit=inherit, final_inherit=final)

    @property
    def left_alone(self) -> dict[str, str]:
        """Name of a tensor -> which method could do nothing for it, and why, of the networks made here last."""
        return {name: why for heirs in self._heirs.values() for name, why in heirs.left_alone.items()}


def _calibrated(chosen: Sequence[ChosenPart], batches: int) -> tuple[ChosenPart, ...]:
    parts = [NamedPart.of(given, "inherit") for given in chosen]
    return tuple(
        NamedPart(name=part.name, settings={**part.settings, "batches": batches})
        if part.name == "bn_recalibration" and "batches" not in part.settings
        else given
        for given, part in zip(chosen, parts, strict=True)
    )


@final
class Heirs:
    """Cuts networks and lets their weights inherit; made by `CandidateFactory.heirs`.

    Args:
        factory: cuts.
        chain: what is done to the weights.
        statistics: on training inputs.
    """

    def __init__(self, factory: CandidateFactory, chain: Chain, statistics: Statistics) -> None:
        self._factory, self._chain, self._statistics = factory, chain, statistics
        chain.prepare(statistics)

    def __call__(self, widths: Widths) -> nn.Module:
        """The network of these widths, on the device of the task.

        Raises:
            EvaluationError: the calibration inputs hold no finite batch.
        """
        made = self._chain.apply(self._factory.cut(widths), self._factory.model, self._statistics)
        return made.to(self._statistics.device)

    @property
    def left_alone(self) -> dict[str, str]:
        """See `Chain.left_alone`."""
        return self._chain.left_alone


Use: TypeAlias = Literal["search", "final", "training"]
"""What a network is for, see `CandidateFactory.heirs`."""

Kind: TypeAlias = Literal["short", "training"]
"""How long an evaluation takes: about as long as scoring one network, or as long as training one."""


class Evaluator(ABC):
    """Widths to score, higher is better.

    Built as `Factory(factory, **settings)`. Same widths and seed give the same score; the base network, its training
    flags and the global random state are as they were afterwards.

    Attributes:
        kind: engines with several machines send the two kinds different ways; trainings can be watched.
        nests: settings that hold other evaluators: one, or a list of them. In a job each is a name, or a mapping of
            `name` and `settings`; the evaluator is given them built. If one of them trains, so does this one.
    """

    kind: Kind = "short"
    nests: tuple[str, ...] = ()

    @abstractmethod
    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float | Score:
        """Score a member of the space on validation data.

        Args:
            widths: member of the space.
            seed: of everything random in the evaluation.
            full: score on all validation data, also where the search uses a part of it.
            watch: only evaluators of kind "training" are given one, where they are watched. They hand it to
                `Task.train`, or report to it themselves, see `Watch.epoch`.

        Returns:
            The score as a plain number, or with what is known of its noise.
        """

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
        self.kind = "training" if trains else "short"

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> Score:
        """See `Evaluator.evaluate`; the global random state inside comes from the seed.

        Raises:
            EvaluationError: the score is not one that the task can give.
            RunError: the base network was changed.
            Stopped: the watch ended it.
        """
        watched = {} if watch is None else {"watch": watch}
        with seeded(seed):
            try:
                score: object = self._inner.evaluate(widths, seed=seed, full=full, **watched)
            except Stopped:
                self._check_base()
                raise
        self._check_base()
        given = as_score(score)
        return replace(given, value=checked_score(given.value, self._task.score_range, what=self._what))

    def prepare(self, directory: Path, *, seed: int) -> None:
        """See `Evaluator.prepare`; each of the nested ones has a folder of its own, where it makes something.

        Raises:
            RunError: the base network was changed.
        """
        for place, part in self._nested.items():
            own = directory / place
            own.mkdir(exist_ok=True)
            part.prepare(own, seed=seed)
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
        if value is not None and (not isinstance(value, int) or value < least):
            raise ConfigError(
                f"evaluator {evaluator!r}: {name} must be at least {least}, a whole number, got {value!r}"
            )


def make_evaluator(name: str, factory: CandidateFactory, settings: Mapping[str, Any]) -> Evaluator:
    """Build an evaluator by name, and those that its settings name; see `Guarded` for what it may not do.

    Raises:
        RegistryError: unknown name.
        ConfigError: a setting that the evaluator does not have, or a value out of range.
    """
    return _made(name, factory, settings, "evaluator.settings")


def check_evaluator(name: str, settings: Mapping[str, Any]) -> None:
    """Check names and names of settings, nested ones too, before anything is built; raises as `make_evaluator`."""
    _check(name, settings, "evaluator.settings")


def kind_of(name: str, settings: Mapping[str, Any]) -> Kind:
    """The kind of an evaluator that is not built: it trains if one that its settings name does."""
    trains = any(getattr(part, "kind", "short") == "training" for part in _parts(name, settings))
    return "training" if trains else "short"


def prepares_something(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether an evaluator that is not built, or one that its settings name, has something to prepare."""
    usual = (None, Evaluator.prepare)
    return any(getattr(part, "prepare", None) not in usual for part in _parts(name, settings))


def _parts(name: str, settings: Mapping[str, Any]) -> Iterator[Any]:
    """The classes of an evaluator and of all that its settings name."""
    yield EVALUATORS.get(name)
    for nested in _nested(name, settings, "evaluator.settings").values():
        for _, chosen in nested.steps:
            yield from _parts(chosen.name, chosen.settings)


class _Nested(NamedTuple):
    """What a setting holds that names other evaluators."""

    steps: Sequence[tuple[str, PartOptions]]  # place among the settings, and what is named there
    listed: bool


def _nested(name: str, settings: Mapping[str, Any], path: str) -> dict[str, _Nested]:
    """Setting -> the evaluators that it names, for those settings that do.

    Raises:
        RegistryError: unknown name.
        ConfigError: something that names no evaluator.
    """
    found = {}
    for key in getattr(EVALUATORS.get(name), "nests", ()):
        if key not in settings:
            continue
        given = settings[key]
        listed = isinstance(given, list | tuple)
        places = {f"{key}[{i}]": one for i, one in enumerate(given)} if listed else {key: given}
        steps = [(place, NamedPart.of(one, f"{path}.{place}")) for place, one in places.items()]
        found[key] = _Nested(steps, listed)
    return found


def _check(name: str, settings: Mapping[str, Any], path: str) -> None:
    bind(EVALUATORS, name, settings)
    for nested in _nested(name, settings, path).values():
        for place, chosen in nested.steps:
            with _at(f"{path}.{place}"):
                _check(chosen.name, chosen.settings, f"{path}.{place}.settings")


def _made(name: str, factory: CandidateFactory, settings: Mapping[str, Any], path: str) -> Guarded:
    parts: dict[str, Evaluator] = {}
    built = dict(settings)
    for key, nested in _nested(name, settings, path).items():
        for place, chosen in nested.steps:
            with _at(f"{path}.{place}"):
                parts[place] = _made(chosen.name, factory, chosen.settings, f"{path}.{place}.settings")
        made = [parts[place] for place, _ in nested.steps]
        built[key] = made if nested.listed else made[0]
    return Guarded(name, bind(EVALUATORS, name, built), factory, parts)


@contextmanager
def _at(path: str) -> Iterator[None]:
    """Inside, errors say at which place among the settings; the innermost place is told."""
    try:
        yield
    except (ConfigError, RegistryError) as error:
        if str(error).startswith("evaluator.settings"):
            raise
        raise type(error)(f"{path}: {error}") from error


__getattr__ = moved_names(__name__, {"Workbench": f"{__name__}:CandidateFactory"})
