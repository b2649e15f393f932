"""Controllers propose widths; one file per algorithm, one line per controller in the table below."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autoprune.registry import Registry

if TYPE_CHECKING:
    from autoprune.controllers.base import Controller
    from autoprune.cost.repair import BudgetedSpace
    from autoprune.space.groups import FloatArray

CONTROLLERS = Registry(
    "controller",
    {
        "surrogate": "autoprune.controllers.surrogate:Surrogate",
        "evolution": "autoprune.controllers.evolution:Evolution",
        "random": "autoprune.controllers.random_search:RandomSearch",
        "annealing": "autoprune.controllers.annealing:Annealing",
        "cmaes": "autoprune.controllers.cmaes:CmaEs",
        "abc": "autoprune.controllers.bee_colony:BeeColony",
        "legr": "autoprune.controllers.legr:LeGR",
        "netadapt": "autoprune.controllers.netadapt:NetAdapt",
        "autoslim": "autoprune.controllers.autoslim:AutoSlim",
        "fastnas": "autoprune.controllers.fastnas:FastNAS",
        "amc": "autoprune.controllers.amc:Amc",
        "pareto": "autoprune.controllers.pareto:Pareto",
    },
    group="autoprune.controllers",
)

_OPTUNA, _HUB = "optuna:", "optunahub:"


def make_controller(
    name: str,
    domain: BudgetedSpace,
    *,
    seed: int,
    settings: Mapping[str, Any],
    trials: int | None = None,
    importance: Sequence[FloatArray] | None = None,
    learned: Any = None,
) -> Controller:
    """Build a controller by name.

    Args:
        name: a name in `CONTROLLERS`, `optuna:TPESampler` for any sampler of Optuna, `optuna:package.module:Class` for
            any other class with Optuna's sampler interface, or `optunahub:samplers/package:Class` for a sampler in a
            copy of OptunaHub's registry, whose folder is the setting `registry`.
        domain: the space under its budget.
        seed: of everything the controller draws.
        settings: keywords of the controller; of the sampler where it is Optuna's. `per` (see `Coarse`) and
            `trust_region` (the distance of `TrustRegion`) hold for every controller, the latter only for those that
            stay inside one budget.
        trials: how many proposals the search will make; schedules are laid out by it.
        importance: per group the (width,) importances of its channels.
        learned: what a search by the same controller for another budget has left (`Controller.learned`).

    Raises:
        RegistryError: no controller or sampler has this name.
        ConfigError: a setting that it does not have, or one that is missing.
        SpaceError: `per` cannot tie the groups of this space.
    """
    given = dict(settings)
    per, distance = given.pop("per", "layer"), given.pop("trust_region", None)

    def build(domain: BudgetedSpace, importance: Sequence[FloatArray] | None) -> Controller:
        controller = _one(name, domain, seed, given, {"trials": trials, "importance": importance, "learned": learned})
        if distance is None:
            return controller
        from autoprune.controllers.trust_region import TrustRegion

        return TrustRegion(domain, controller, seed=seed, distance=distance)

    if per == "layer":
        return build(domain, importance)
    from autoprune.controllers.coarse import Coarse

    return Coarse(domain, per=per, inner=build, importance=importance)


def _one(
    name: str, domain: BudgetedSpace, seed: int, settings: Mapping[str, Any], facts: Mapping[str, Any]
) -> Controller:
    """The controller of this name, given those of the facts about the search that it takes."""
    from autoprune.errors import ConfigError, blame
    from autoprune.settings import check_numbers, check_settings

    if name.startswith((_OPTUNA, _HUB)):
        from autoprune.controllers.optuna_sampler import OptunaSampler

        kind, _, sampler = name.partition(":")
        return OptunaSampler(domain, seed=seed, sampler=sampler, settings=settings, hub=f"{kind}:" == _HUB)
    factory = CONTROLLERS.get(name)
    check_settings(factory, settings, what=f"controller {name!r}", reserved={"domain", "seed", "importance", "learned"})
    check_numbers(factory, settings, what=f"controller {name!r}")
    length = settings.get("trials")
    if isinstance(length, int) and length < 1:
        raise ConfigError(f"controller {name!r}: trials must be at least 1, got {length}")
    takes = inspect.signature(factory).parameters
    taken = {key: fact for key, fact in facts.items() if key in takes and key not in settings}
    with blame(ConfigError, f"controller {name!r} fails with settings {dict(settings)}", then="Correct its settings."):
        controller: Controller = factory(domain, seed=seed, **taken, **settings)
    return controller
