"""What a comparison combines: what is named, and the usual parts beside it, tried before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar, final

from autoprune.allocation import ALLOCATIONS
from autoprune.config.job import SearchOptions
from autoprune.config.parts import AllocationOptions, NamedPart, PartOptions
from autoprune.config.settings import bind
from autoprune.errors import AutopruneError, BudgetError, ConfigError
from autoprune.evaluators.candidates import CandidateFactory, usual_inheritance
from autoprune.importance.members import ranking_of
from autoprune.importance.scoring import ChosenCriterion
from autoprune.inherit import INHERITANCE
from autoprune.inherit.base import Chain
from autoprune.pipeline.prepared import Prepared
from autoprune.pipeline.rules import rule_inputs
from autoprune.space.groups import FloatArray
from autoprune.studies.options import CompareOptions, chain_label
from autoprune.tasks.base import Task
from autoprune.texts import first_line
from autoprune.verdict.rules import called

_ALLOCATIONS = ("uniform_all", "uniform_inner", "stagewise", "global_threshold", "isomorphic", "log_width")
_CRITERIA = ("l2", "fpgm", "taylor_weight")
_INHERIT = ((), ("bn_recalibration",), ("least_squares", "bn_recalibration"))
"""What is compared where nothing else is asked for: cheap, and each good somewhere."""

P = TypeVar("P", bound=PartOptions)
T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class ComparedParts:
    """What is combined; `named` tells whether somebody asked for just these."""

    allocations: tuple[AllocationOptions, ...]
    criteria: tuple[NamedPart, ...]
    inherit: tuple[tuple[NamedPart, ...], ...]
    named: frozenset[str]

    @classmethod
    def of(cls, options: CompareOptions, search: SearchOptions, task: Task) -> ComparedParts:
        """What the options name; for what they leave open the job's own, and the usual ones beside it.

        Raises:
            RegistryError: no such part.
            ConfigError: a setting that it does not have.
        """
        rules = options.allocations or (*map(_rule, _ALLOCATIONS), *search.allocations)
        criteria = options.criteria or (search.criterion, *(NamedPart.of(name, "criteria") for name in _CRITERIA))
        chains = options.inherit or (
            *(
                tuple(NamedPart.of(name, "inherit") for name in chain)
                for chain in _INHERIT
                if set(chain) <= set(INHERITANCE.names())
            ),
            own_chain(search, task),
        )
        for rule in rules:
            bind(ALLOCATIONS, rule.name, rule.settings)
        for part in criteria:
            ChosenCriterion.of(part)
        for chain in chains:
            Chain(chain)
        named = frozenset(f for f in ("allocations", "criteria", "inherit") if getattr(options, f) is not None)
        lists = {chain_label(chain): chain for chain in chains}
        return cls(_distinct(rules), _distinct(criteria), tuple(lists.values()), named)

    @property
    def text(self) -> str:
        """All labels, to tell whether a comparison is the same."""
        labels = [[part.label for part in parts] for parts in (self.allocations, self.criteria)]
        return json.dumps([*labels, [chain_label(chain) for chain in self.inherit]])


def usable(parts: ComparedParts, runs: Sequence[Prepared]) -> tuple[ComparedParts, list[str]]:
    """Try all parts on the network as it is: those that can be used, and why others are left out.

    Args:
        parts: all of them.
        runs: one for each budget; nothing has been written yet.

    Raises:
        AutopruneError: one that somebody asked for cannot be used.
    """
    first, notes = runs[0], []
    network, task, job = first.network, first.run_inputs.task, first.run_inputs.job

    def fits(kind: str, part: T, label: str, attempt: Callable[[T], object]) -> bool:
        try:
            attempt(part)
        except AutopruneError as error:
            if kind in parts.named:
                raise
            notes.append(f"{label} is left out: {first_line(error)}")
            return False
        return True

    def by(criterion: NamedPart) -> list[FloatArray]:
        return first.scores(network, batches=1, criterion=criterion)

    inputs = rule_inputs(first.space, network, by)
    criteria = tuple(part for part in parts.criteria if fits("criteria", part, part.label, inputs.scores))
    if not criteria:
        raise ConfigError(
            f"none of the criteria can be used: {'; '.join(notes)}. Name one that needs no data, such as l2"
        )

    def called_once(rule: AllocationOptions) -> None:
        for prepared in runs:
            with suppress(BudgetError):  # it is told when the trained network is there
                called(rule, prepared.domain, inputs.scores(criteria[0]), inputs)

    def made(chain: tuple[NamedPart, ...]) -> None:
        ranking = ranking_of(first.space, by(criteria[0]))
        CandidateFactory(network, first.space, ranking, task, job.training.epochs, chain).heirs("search")

    rules = tuple(rule for rule in parts.allocations if fits("allocations", rule, rule.label, called_once))
    chains = tuple(chain for chain in parts.inherit if fits("inherit", chain, chain_label(chain), made))
    return replace(parts, allocations=rules, criteria=criteria, inherit=chains), notes


def own_chain(search: SearchOptions, task: Task) -> tuple[NamedPart, ...]:
    """What a search of these options does to the weights of candidates."""
    if search.inherit is not None:
        return search.inherit
    return usual_inheritance("search", has_inputs=bool(task.calibration_inputs(1, seed=0)))


def _rule(name: str) -> AllocationOptions:
    return AllocationOptions.of(name, "allocations")


def _distinct(parts: Sequence[P]) -> tuple[P, ...]:
    return tuple({part.label: part for part in parts}.values())
