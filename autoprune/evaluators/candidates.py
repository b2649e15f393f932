"""What candidates are made from, and the networks that inherit weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, TypeAlias, final

from torch import nn

from autoprune.config.parts import ChosenPart, NamedPart
from autoprune.inherit import FINAL_DEFAULT, OF_DENSITIES, SEARCH_DEFAULT, WITHOUT_INPUTS
from autoprune.inherit.base import Chain, Statistics
from autoprune.space.copying import copy_network
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import Ranking, Slicer
from autoprune.space.groups import SearchSpace, Widths
from autoprune.tasks.base import Task


@final
@dataclass(frozen=True, slots=True, eq=False)
class OtherStart:
    """Other weights of the base network, from which candidates can be cut as well.

    Attributes:
        model: in the form of the space; only read.
        ranking: per group, the rank of each channel.
    """

    model: nn.Module
    ranking: Ranking


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
        inherit: what is done to the weights of cut networks, in order; None: `SEARCH_DEFAULT`, or `WITHOUT_INPUTS`
            where there are no calibration inputs.
        final_inherit: the same for networks that are compared at the end; None: as `inherit`, or `FINAL_DEFAULT` where
            that is None, too.
        batches: on how many batches norms are recalibrated where a list does not say it; None: the method's default.
        starts: name -> other weights than those of `model`, see `starting_from`.
        drawn: a few networks on the job's budget, as random search draws them; empty where no budget is known.
    """

    model: nn.Module
    space: SearchSpace
    ranking: Ranking
    task: Task
    base_epochs: int
    inherit: tuple[ChosenPart, ...] | None = None
    final_inherit: tuple[ChosenPart, ...] | None = None
    batches: int | None = None
    starts: Mapping[str, OtherStart] = field(default_factory=dict)
    drawn: tuple[Widths, ...] = ()
    _slicer: Slicer = field(init=False, repr=False)
    _heirs: dict[tuple[str, bool, int], Heirs] = field(default_factory=dict, init=False, repr=False)
    _started: dict[str, CandidateFactory] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", self.task.compared_with(self.model))
        object.__setattr__(self, "_slicer", Slicer(self.model, self.space, self.ranking))

    def starting_from(self, name: str) -> CandidateFactory:
        """The same, cutting from other weights; itself where the name is empty. Scores compare with `model` still."""
        if not name:
            return self
        if name not in self._started:
            start = self.starts[name]
            made = replace(self, model=start.model, ranking=start.ranking, starts={})
            object.__setattr__(made, "task", self.task)
            self._started[name] = made
        return self._started[name]

    def candidate(self, widths: Widths) -> nn.Module:
        """A new network of these widths with inherited weights."""
        return self._slicer(widths)

    def cut(self, widths: Widths) -> Cut:
        """As `candidate`, with the indices that survived."""
        return self._slicer.cut(widths)

    def heirs(self, use: Use, *, channels_last: bool = False, draw: int = 0) -> Heirs:
        """Makes networks whose weights went through the job's inheritance, the one place where that is done.

        What is gathered for it is gathered once for each use.

        Args:
            use: "search" for candidates; "final" for networks that are compared at the end; "training" for those of
                them that a training goes on from.
            channels_last: images, and the weights of the networks, lie in memory with their channels last.
            draw: which inputs are drawn for it; 0: those of the search.
        """
        if use == "final" and self.final_inherit is None and self.inherit is not None:
            use = "search"
        key = use, channels_last, draw
        if key not in self._heirs:
            chain = Chain(self._chosen(use))
            chain.check_fits(self.space)
            if use == "training" and self.final_inherit is None:  # a training makes running statistics of its own
                chain = chain.before_training()
            inputs = partial(self.task.calibration_inputs, seed=draw)
            statistics = Statistics(inputs, self.task.device, channels_last=channels_last)
            self._heirs[key] = Heirs(self, chain, statistics)
        return self._heirs[key]

    @property
    def finals_inherit_otherwise(self) -> bool:
        """Whether networks that are compared at the end inherit in another way than candidates."""
        return self._chosen("search") != self._chosen("final")

    def _chosen(self, use: Use) -> tuple[ChosenPart, ...]:
        """What the lists say, or what is usual."""
        asked = self.inherit if use == "search" or self.final_inherit is None else self.final_inherit
        if asked is not None:
            return asked
        has_inputs = bool(self.task.calibration_inputs(1, seed=0))
        fits = has_inputs and not self.space.factors and not self.space.only_bits
        usual = usual_inheritance(use, has_inputs=fits, densities=bool(self.space.densities))
        return usual if self.batches is None else _calibrated(usual, self.batches)

    def calibrated(self, batches: int) -> CandidateFactory:
        """The same, recalibrating batch norms on so many batches wherever a list does not say on how many."""
        inherit, final = (
            None if chosen is None else _calibrated(chosen, batches) for chosen in (self.inherit, self.final_inherit)
        )
        batches = batches if self.batches is None else self.batches
        if (inherit, final, batches) == (self.inherit, self.final_inherit, self.batches):
            return self
        return replace(self, inherit=inherit, final_inherit=final, batches=batches)

    @property
    def left_alone(self) -> dict[str, str]:
        """Name of a tensor -> which method could do nothing for it, and why, of the networks made here last."""
        return {name: why for heirs in self._heirs.values() for name, why in heirs.left_alone.items()}


def usual_inheritance(use: Use, *, has_inputs: bool, densities: bool = False) -> tuple[NamedPart, ...]:
    """What is done to weights for this use where no job says it, with calibration inputs and without."""
    names: tuple[str, ...] = SEARCH_DEFAULT if use == "search" else FINAL_DEFAULT
    if not has_inputs or densities:
        names = OF_DENSITIES if has_inputs else WITHOUT_INPUTS
    return tuple(NamedPart(name=name) for name in names)


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
        return self.cut(widths).network

    def cut(self, widths: Widths) -> Cut:
        """As calling it, with the indices that survived.

        Raises:
            EvaluationError: as above.
        """
        cut = self._factory.cut(widths)
        made = self._chain.apply(cut, self._factory.model, self._statistics)
        return replace(cut, network=made.to(self._statistics.device))

    def refit(self, cut: Cut, network: nn.Module) -> Cut:
        """Let the weights of a cut inherit from a network other than the base network, such as one that is in training.

        Args:
            cut: of `network`; changed in place.
            network: only read.
        """
        statistics = Statistics(self._statistics.inputs, self._statistics.device)
        self._chain.apply(cut, copy_network(network).eval(), statistics)
        cut.network.to(self._statistics.device)
        return cut

    @property
    def left_alone(self) -> dict[str, str]:
        """See `Chain.left_alone`."""
        return self._chain.left_alone


Use: TypeAlias = Literal["search", "final", "training"]
"""What a network is for, see `CandidateFactory.heirs`."""
