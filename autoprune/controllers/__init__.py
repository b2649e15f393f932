"""Controllers propose widths; one file per algorithm, one card per controller in the table below."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autoprune.registry import Part, Registry

if TYPE_CHECKING:
    from autoprune.controllers.base import Controller
    from autoprune.cost.budget.repair import BudgetedSpace
    from autoprune.space.groups import FloatArray

CONTROLLERS = Registry(
    "controller",
    {
        "surrogate": Part(
            "autoprune.controllers.surrogate:Surrogate",
            "Thompson sampling on a Gaussian process over log widths; this package",
            "The default: noisy scores, 20 to 500 trials.",
        ),
        "evolution": Part(
            "autoprune.controllers.evolution:Evolution",
            "Real et al. 2019; variants: MetaPruning (Liu et al. 2019), EagleEye (Li et al. 2020)",
            "Thousands of cheap trials, where a model of the scores would cost more than it saves.",
        ),
        "random": Part(
            "autoprune.controllers.random_search:RandomSearch",
            "independent ratios",
            "The control: what does not beat it has learned nothing.",
        ),
        "annealing": Part(
            "autoprune.controllers.annealing:Annealing",
            "Kirkpatrick et al. 1983; AutoCompress (Liu et al. 2020)",
            "One point that moves, a worker or two; a simple second opinion.",
        ),
        "cmaes": Part(
            "autoprune.controllers.cmaes:CmaEs",
            "Hansen 2016",
            "Smooth scores with interacting widths, up to about 50 groups and some hundred trials or more.",
        ),
        "abc": Part(
            "autoprune.controllers.bee_colony:BeeColony",
            "ABCPruner: Lin et al. 2020",
            "To compare with the paper; several good regions are kept at once.",
        ),
        "level_switch": Part(
            "autoprune.controllers.level_switch:LevelSwitch",
            "EvoPress: Sieberling et al. 2024; DarwinLM: Tang et al. 2025",
            "To compare with the papers; thousands of cheap scores, as of divergence on few examples.",
        ),
        "knapsack_plus": Part(
            "autoprune.controllers.knapsack_plus:KnapsackPlus",
            "Puzzle: Bercovich et al. 2024; HALP: Shen et al. 2021; why not alone: EvoPress, Sieberling et al. 2024",
            "Groups that hardly interact, twice as many trials as groups: half of them exceed the budget.",
        ),
        "partial_order": Part(
            "autoprune.controllers.partial_order:PartialOrder",
            "Partial Order Pruning: Li et al. 2019",
            "To compare with the paper; the boundary between latency and score, at several budgets at once.",
        ),
        "constraint_aware": Part(
            "autoprune.controllers.constraint_aware:ConstraintAware",
            "Chen et al. 2018, Constraint-Aware Deep Neural Network Compression",
            "To compare with the paper; tight budgets where looser ones show the way. Most trials exceed the budget.",
        ),
        "legr": Part(
            "autoprune.controllers.legr:LeGR",
            "LeGR: Chin et al. 2020",
            "Importances that hold within a layer, not between layers; a family of budgets shares its ranking.",
        ),
        "netadapt": Part(
            "autoprune.controllers.netadapt:NetAdapt",
            "NetAdapt: Yang et al. 2018",
            "To compare with the paper; few groups, exact scores. Most of its trials exceed the budget.",
        ),
        "autoslim": Part(
            "autoprune.controllers.autoslim:AutoSlim",
            "AutoSlim: Yu and Huang 2019",
            "A supernet or inherited weights give cheap, exact scores. Most of its trials exceed the budget.",
        ),
        "fastnas": Part(
            "autoprune.controllers.fastnas:FastNAS",
            "FastNAS: NVIDIA Model Optimizer",
            "Fewest trials where groups hardly interact; its curves serve every budget, but exceed this one.",
        ),
        "amc": Part(
            "autoprune.controllers.amc:Amc",
            "AMC: He et al. 2018",
            "To compare with the paper; 400 trials or more, as the agent begins from nothing.",
        ),
        "pareto": Part(
            "autoprune.controllers.pareto:Pareto",
            "NSGA-II: Deb et al. 2002",
            "Several budgets or metrics at once: a front, and a winner for each budget.",
        ),
    },
    group="autoprune.controllers",
    families={
        "optuna:SAMPLER": Part(
            "autoprune.controllers.optuna_sampler:of_optuna",
            "any sampler of Optuna (Akiba et al. 2019), such as optuna:TPESampler",
            "You know that sampler, or bring your own: optuna:package.module:Class.",
        ),
        "optunahub:PACKAGE:CLASS": Part(
            "autoprune.controllers.optuna_sampler:of_optunahub",
            "a sampler of OptunaHub, from a copy of its registry (setting registry)",
            "Samplers that Optuna does not ship, such as optunahub:samplers/auto_sampler:AutoSampler.",
        ),
    },
    called_with=1,
    reserved=("seed", "importance", "learned"),
    shared={
        "per": "stage, block or model: groups that share one ratio; fewer dimensions for short searches",
        "trust_region": "a distance of log ratios, such as 0.5: proposals stay that near the best trial, of one budget",
    },
)


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
        from autoprune.controllers.wrappers.trust_region import TrustRegion

        return TrustRegion(domain, controller, seed=seed, distance=distance)

    if per == "layer":
        return build(domain, importance)
    from autoprune.controllers.wrappers.coarse import Coarse

    return Coarse(domain, per=per, inner=build, importance=importance)


def check_controller(name: str, settings: Mapping[str, Any]) -> None:
    """Check the names of settings before anything is traced; those of samplers of Optuna show when they are built.

    Raises:
        RegistryError: no controller or sampler has this name.
        ConfigError: a setting that it does not have, or one that is missing.
    """
    from autoprune.config.settings import bind, check_numbers

    own = {key: value for key, value in settings.items() if key not in ("per", "trust_region")}
    part = CONTROLLERS.get(name)
    if ":" not in name:
        bind(CONTROLLERS, name, own)
    check_numbers(part, own, what=f"controller {name!r}")


def _one(
    name: str, domain: BudgetedSpace, seed: int, settings: Mapping[str, Any], facts: Mapping[str, Any]
) -> Controller:
    """The controller of this name, given those of the facts about the search that it takes."""
    from autoprune.config.settings import bind, check_numbers
    from autoprune.errors import ConfigError, blame

    factory, what = bind(CONTROLLERS, name, settings), f"controller {name!r}"
    check_numbers(CONTROLLERS.get(name), settings, what=what)
    length = settings.get("trials")
    if isinstance(length, int) and length < 1:
        raise ConfigError(f"{what}: trials must be at least 1, got {length}")
    takes = inspect.signature(factory).parameters
    taken = {key: fact for key, fact in facts.items() if key in takes and key not in settings}
    with blame(ConfigError, f"{what} fails with settings {dict(settings)}", then="Correct its settings."):
        controller: Controller = factory(domain, seed=seed, **taken)
    return controller
