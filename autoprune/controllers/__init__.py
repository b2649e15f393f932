"""Controllers propose widths; one file per algorithm, one line per controller in the table below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autoprune.registry import Registry

if TYPE_CHECKING:
    from autoprune.controllers.base import Controller
    from autoprune.cost.repair import BudgetedSpace

CONTROLLERS = Registry(
    "controller",
    {
        "surrogate": "autoprune.controllers.surrogate:Surrogate",
        "evolution": "autoprune.controllers.evolution:Evolution",
        "random": "autoprune.controllers.random_search:RandomSearch",
    },
    group="autoprune.controllers",
)

_OPTUNA = "optuna:"


def make_controller(name: str, domain: BudgetedSpace, *, seed: int, settings: Mapping[str, Any]) -> Controller:
    """Build a controller by name.

    Args:
        name: a name in `CONTROLLERS`, `optuna:TPESampler` for any sampler of Optuna, or `optuna:package.module:Class`
            for any other class with Optuna's sampler interface.
        domain: the space under its budget.
        seed: of everything the controller draws.
        settings: keywords of the controller; of the sampler where it is Optuna's.

    Raises:
        RegistryError: no controller or sampler has this name.
        ConfigError: a setting that it does not have, or one that is missing.
    """
    from autoprune.controllers.settings import check_settings

    if name.startswith(_OPTUNA):
        from autoprune.controllers.optuna_sampler import OptunaSampler

        return OptunaSampler(domain, seed=seed, sampler=name.removeprefix(_OPTUNA), settings=settings)
    factory = CONTROLLERS.get(name)
    check_settings(factory, settings, what=f"controller {name!r}", reserved={"domain", "seed"})
    controller: Controller = factory(domain, seed=seed, **settings)
    return controller
