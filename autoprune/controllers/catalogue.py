"""What `autoprune controllers` lists: every controller with its source and when to use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from autoprune.controllers import CONTROLLERS


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """One controller.

    Attributes:
        name: as in `search.controller` of a job file.
        source: who described it.
        use: when to choose it, one sentence.
    """

    name: str
    source: str
    use: str


_OURS = (
    Entry(
        "surrogate",
        "Thompson sampling on a Gaussian process over log widths; this package",
        "The default: noisy scores, 20 to 500 trials.",
    ),
    Entry(
        "evolution",
        "Real et al. 2019; variants: MetaPruning (Liu et al. 2019), EagleEye (Li et al. 2020)",
        "Thousands of cheap trials, where a model of the scores would cost more than it saves.",
    ),
    Entry("random", "independent ratios", "The control: what does not beat it has learned nothing."),
    Entry(
        "annealing",
        "Kirkpatrick et al. 1983; AutoCompress (Liu et al. 2020)",
        "One point that moves, a worker or two; a simple second opinion.",
    ),
    Entry(
        "cmaes",
        "Hansen 2016",
        "Smooth scores with interacting widths, up to about 50 groups and some hundred trials or more.",
    ),
    Entry("abc", "ABCPruner: Lin et al. 2020", "To compare with the paper; several good regions are kept at once."),
    Entry(
        "legr",
        "LeGR: Chin et al. 2020",
        "Importances that can be trusted within a layer, not between layers; a family of budgets shares its ranking.",
    ),
    Entry(
        "netadapt",
        "NetAdapt: Yang et al. 2018",
        "To compare with the paper; few groups, exact scores. Most of its trials exceed the budget.",
    ),
    Entry(
        "autoslim",
        "AutoSlim: Yu and Huang 2019",
        "A supernet or inherited weights give cheap, exact scores. Most of its trials exceed the budget.",
    ),
    Entry(
        "fastnas",
        "FastNAS: NVIDIA Model Optimizer",
        "Fewest trials where groups hardly interact; its curves serve every budget, but exceed this one.",
    ),
    Entry(
        "amc",
        "AMC: He et al. 2018",
        "To compare with the paper; 400 trials or more, as the agent begins from nothing.",
    ),
    Entry(
        "pareto",
        "NSGA-II: Deb et al. 2002",
        "Several budgets or metrics at once: a front, and a winner for each budget.",
    ),
)
_WRAPPERS = (
    Entry(
        "optuna:SAMPLER",
        "any sampler of Optuna (Akiba et al. 2019), such as optuna:TPESampler",
        "You know that sampler, or bring your own: optuna:package.module:Class.",
    ),
    Entry(
        "optunahub:PACKAGE:CLASS",
        "a sampler of OptunaHub, from a copy of its registry (setting registry)",
        "Samplers that Optuna does not ship, such as optunahub:samplers/auto_sampler:AutoSampler.",
    ),
)
SHARED_SETTINGS = {
    "per": "stage, block or model: groups that share one ratio; fewer dimensions for short searches",
    "trust_region": "a distance of log ratios, such as 0.5: proposals stay that near the best trial; for one budget",
}
"""Settings that every controller takes, and what they do; `trust_region` where all proposals aim at one budget."""


def entries() -> list[Entry]:
    """Return all controllers that can be named in a job, ours first, then other packages', then the wrappers."""
    ours = {entry.name: entry for entry in _OURS}
    listed = [ours.get(name, Entry(name, "an installed package", "")) for name in CONTROLLERS.names()]
    return [*listed, *_WRAPPERS]
