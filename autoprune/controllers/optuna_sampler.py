"""Any sampler of Optuna as a controller, on a study in memory; one integer parameter per group, the index of a choice.

The sampler learns from the widths that were evaluated, that is from the repaired ones, not from those it drew.
Samplers of OptunaHub come from a copy of its registry on disk; nothing is downloaded.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution

from autoprune.config.settings import check_settings
from autoprune.controllers.base import Controller, Trial, TrialState
from autoprune.controllers.parts.proposals import as_widths, teachable, unseen_near
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError, RegistryError, blame, suggest
from autoprune.registry import load_object
from autoprune.space.groups import Widths

Factory: TypeAlias = Callable[..., Controller]
"""(domain, *, seed, **settings of the sampler) -> a controller."""

_LARGEST_SEED = 2**32 - 1
"""Samplers hand their seed to numpy's old generator, which takes no larger one."""


def of_optuna(sampler: str) -> Factory:
    """Return the factory of the controller `optuna:SAMPLER`."""

    def build(domain: BudgetedSpace, *, seed: int, **settings: Any) -> Controller:
        return OptunaSampler(domain, seed=seed, sampler=sampler, settings=settings)

    return build


def of_optunahub(sampler: str) -> Factory:
    """Return the factory of the controller `optunahub:PACKAGE:CLASS`."""

    def build(domain: BudgetedSpace, *, seed: int, **settings: Any) -> Controller:
        return OptunaSampler(domain, seed=seed, sampler=sampler, settings=settings, hub=True)

    return build


@final
class OptunaSampler(Controller):
    """Wraps a sampler class of Optuna, or any class with its interface.

    Args:
        domain: the space under its budget.
        seed: of the sampler and of the variations that replace repeats.
        sampler: a class name of `optuna.samplers`, or "package.module:Class"; of OptunaHub "samplers/package:Class".
        settings: keywords of the sampler's class; of OptunaHub also `registry`, the folder of the registry's packages.
        hub: the sampler is one of OptunaHub's.

    Raises:
        RegistryError: no sampler has this name, or OptunaHub is not installed.
        ConfigError: a setting that the sampler does not have, or a sampler without a `seed` (it could not be replayed).
    """

    def __init__(
        self,
        domain: BudgetedSpace,
        *,
        seed: int,
        sampler: str,
        settings: Mapping[str, Any] | None = None,
        hub: bool = False,
    ) -> None:
        self._domain = domain
        self._rng = np.random.default_rng(seed)
        self._distributions: dict[str, BaseDistribution] = {
            group.name: IntDistribution(0, len(group.choices) - 1) for group in domain.space.groups
        }
        self._seen: set[Widths] = set()
        self._pending: dict[Widths, optuna.Trial] = {}
        with _quiet():
            if hub:
                built = _build_from_hub(sampler, seed, settings or {}, self._distributions)
            else:
                factory = load_object(sampler) if ":" in sampler else _named(sampler)
                built = _build(factory, f"optuna:{sampler}", seed, settings or {})
            self._study = optuna.create_study(direction="maximize", sampler=built)

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` proposals of the sampler, repaired; a repeat is replaced by a variation of it."""
        with _quiet():
            return [self._propose() for _ in range(n)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Add the scored trials to the study; those that failed only stop being pending."""
        learned = teachable(trials, at_rungs=True)
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
            widths = unseen_near(self._domain, widths, self._seen, self._rng)
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
                value=None if trial.at_rung else score,  # of another scale; Optuna compares those of one step
                intermediate_values={round(100 * trial.fidelity) if trial.at_rung else 0: score} if pruned else None,
                params={g.name: g.choices.index(w) for g, w in zip(groups, trial.widths, strict=True)},
                distributions=self._distributions,
                system_attrs=dict(notes),
            )
        )


def _build(factory: Any, name: str, seed: int, settings: Mapping[str, Any]) -> optuna.samplers.BaseSampler:
    what = f"controller {name!r}"
    if seed > _LARGEST_SEED:
        seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    check_settings(factory, settings, what=what, reserved={"seed"})
    check_settings(factory, {**settings, "seed": seed}, what=what, reserved=set())
    sampler = factory(seed=seed, **settings)
    if not isinstance(sampler, optuna.samplers.BaseSampler):
        raise ConfigError(f"{what} is not a subclass of optuna.samplers.BaseSampler; name one that is")
    return sampler


def _build_from_hub(
    name: str, seed: int, settings: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> optuna.samplers.BaseSampler:
    """A sampler of a registry on disk: https://optuna.github.io/optunahub, `load_local_module`."""
    package, _, class_name = name.partition(":")
    own = dict(settings)
    registry = own.pop("registry", None)
    if not package or not class_name:
        raise RegistryError(
            f"'optunahub:{name}' is not of the form 'optunahub:samplers/package:Class', for example "
            f"'optunahub:samplers/auto_sampler:AutoSampler'"
        )
    if registry is None or not (Path(registry) / package).is_dir():
        raise ConfigError(
            f"controller 'optunahub:{name}' needs the setting 'registry': the folder that holds {package}, got "
            f"{registry!r}. Nothing is downloaded in a search; clone https://github.com/optuna/optunahub-registry "
            f"and give its folder `package`"
        )
    try:
        optunahub: Any = importlib.import_module("optunahub")
    except ModuleNotFoundError as error:
        raise RegistryError(
            f"controller 'optunahub:{name}' needs the package optunahub; install it with `pip install optunahub`"
        ) from error
    with blame(RegistryError, f"controller 'optunahub:{name}' cannot be loaded from {registry}"):
        module = optunahub.load_local_module(package, registry_root=str(registry))
    if not hasattr(module, class_name):
        raise RegistryError(f"{package} of {registry} has no {class_name!r}.{suggest(class_name, vars(module))}")
    factory = getattr(module, class_name)
    if "search_space" in inspect.signature(factory).parameters:  # many take it when they are made
        own.setdefault("search_space", dict(distributions))
    return _build(factory, f"optunahub:{name}", seed, own)


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
