"""Any sampler of Optuna as a controller, on a study in memory; one integer parameter per group, the index of a choice.

The sampler learns from the widths that were evaluated, that is from the repaired ones, not from those it drew.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution

from autoprune.controllers.base import Controller, Trial, TrialState
from autoprune.controllers.proposals import TRIES, as_widths, mutate, teachable, unseen_variation
from autoprune.controllers.settings import check_settings
from autoprune.cost.repair import BudgetedSpace
from autoprune.errors import ConfigError, RegistryError, suggest
from autoprune.registry import load_object
from autoprune.space.groups import Widths


@final
class OptunaSampler(Controller):
    """Wraps a sampler class of Optuna, or any class with its interface.

    Args:
        domain: the space under its budget.
        seed: of the sampler and of the variations that replace repeats.
        sampler: a class name of `optuna.samplers`, or "package.module:Class".
        settings: keywords of the sampler's class.

    Raises:
        RegistryError: no sampler has this name.
        ConfigError: a setting that the sampler does not have, or a sampler without a `seed` (it could not be replayed).
    """

    def __init__(
        self, domain: BudgetedSpace, *, seed: int, sampler: str, settings: Mapping[str, Any] | None = None
    ) -> None:
        self._domain = domain
        self._rng = np.random.default_rng(seed)
        self._distributions: dict[str, BaseDistribution] = {
            group.name: IntDistribution(0, len(group.choices) - 1) for group in domain.space.groups
        }
        self._seen: set[Widths] = set()
        self._pending: dict[Widths, optuna.Trial] = {}
        with _quiet():
            self._study = optuna.create_study(direction="maximize", sampler=_build(sampler, seed, settings or {}))

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` proposals of the sampler, repaired; a repeat is replaced by a variation of it."""
        with _quiet():
            return [self._propose() for _ in range(n)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Add the scored trials to the study; those that failed only stop being pending."""
        learned = teachable(trials)
        with _quiet():
            for trial, score in learned:
                self._add(trial, score)
            for widths in sorted({trial.widths for trial in trials}):
                self._seen.add(widths)
                if widths in self._pending:
                    self._study.tell(self._pending.pop(widths), state=optuna.trial.TrialState.FAIL)

    def _propose(self) -> Widths:
        asked = self._study.ask(self._distributions)
        drawn = [group.choices[asked.params[group.name]] for group in self._domain.space.groups]
        widths = as_widths(self._domain.repair(np.array([drawn]))[0])
        if widths in self._seen:
            near = mutate(self._domain, np.repeat([widths], TRIES, axis=0), 1 / len(widths), self._rng)
            widths = unseen_variation(self._domain, near, self._seen, self._rng)
        self._seen.add(widths)
        self._pending.setdefault(widths, asked)
        return widths

    def _add(self, trial: Trial, score: float) -> None:
        """Add what was evaluated; the sampler's own notes on the trial (its generation, say) are kept."""
        asked = self._pending.get(trial.widths)
        notes = self._study.get_trials(deepcopy=False)[asked.number].system_attrs if asked else {}
        pruned = trial.state is TrialState.PRUNED
        groups = self._domain.space.groups
        self._study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE,
                value=score,
                intermediate_values={0: score} if pruned else None,
                params={g.name: g.choices.index(w) for g, w in zip(groups, trial.widths, strict=True)},
                distributions=self._distributions,
                system_attrs=dict(notes),
            )
        )


def _build(name: str, seed: int, settings: Mapping[str, Any]) -> optuna.samplers.BaseSampler:
    factory = load_object(name) if ":" in name else _named(name)
    what = f"controller 'optuna:{name}'"
    check_settings(factory, {"seed": seed}, what=what, reserved=set())
    check_settings(factory, settings, what=what, reserved={"seed"})
    sampler = factory(seed=seed, **settings)
    if not isinstance(sampler, optuna.samplers.BaseSampler):
        raise ConfigError(f"{what} is not a subclass of optuna.samplers.BaseSampler; name one that is")
    return sampler


def _named(name: str) -> Any:
    names = [known for known in optuna.samplers.__all__ if known.endswith("Sampler") and not known.startswith("Base")]
    if name not in names:
        raise RegistryError(
            f"unknown Optuna sampler {name!r}; choose one of {', '.join(names)}, "
            f"or 'package.module:Class' for another package's.{suggest(name, names)}"
        )
    return getattr(optuna.samplers, name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Optuna's log and its notes on experimental parts; both are as before afterwards."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
