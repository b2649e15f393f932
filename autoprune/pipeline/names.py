"""Whether there is all that a job file names, asked of the cards alone: nothing is imported, so it is told at once."""

from __future__ import annotations

from autoprune.allocation import ALLOCATIONS
from autoprune.config.job import Job
from autoprune.controllers import CONTROLLERS
from autoprune.cost import METRICS
from autoprune.cost.budget.limits import check_limit
from autoprune.data import DATA_SETS
from autoprune.evaluators import EVALUATORS
from autoprune.importance import CRITERIA
from autoprune.inherit import INHERITANCE
from autoprune.measures import MEASURES
from autoprune.progress import CALLBACKS
from autoprune.registry import Registry
from autoprune.sparsity import SPARSITY
from autoprune.tasks import TASKS
from autoprune.training import PROTOCOLS
from autoprune.training.objectives import OBJECTIVES
from autoprune.training.schedules import SCHEDULES
from autoprune.training.terms import TERMS
from autoprune.zoo import ZOO


def check_names(job: Job) -> None:
    """Check every name, and that limits are limits; settings are checked by the parts (see `checks.check_parts`).

    Raises:
        RegistryError: no part has a name; the closest one is suggested.
        BudgetError: a limit that cannot be read.
    """
    search, recipe = job.search, job.training
    criteria = [search.criterion, *(rule.criterion for rule in search.allocations if rule.criterion is not None)]
    named: list[tuple[Registry, list[str]]] = [
        (ZOO, [job.model.factory]),
        (DATA_SETS, [job.data.name]),
        (TASKS, [job.task.name]),
        (MEASURES, [] if job.task.measure is None else [job.task.measure.name]),
        (SCHEDULES, [recipe.schedule.name]),
        (OBJECTIVES, [recipe.objective.name]),
        (TERMS, [term.name for term in recipe.terms]),
        (METRICS, [*job.constraints, *job.metrics]),
        (CONTROLLERS, [search.controller.name]),
        (EVALUATORS, [search.evaluator.name]),
        (CRITERIA, [criterion.name for criterion in criteria]),
        (INHERITANCE, [one.name for one in (*(search.inherit or ()), *(job.verdict.inherit or ()))]),
        (ALLOCATIONS, [rule.name for rule in search.allocations]),
        (SPARSITY, [method.name for method in job.sparsity.methods]),
        (PROTOCOLS, [protocol.name for protocol in job.verdict.protocols]),
        (CALLBACKS, [callback.name for callback in job.callbacks]),
    ]
    for table, names in named:
        for name in names:
            table.check(name)
    for metric, given in job.constraints.items():
        for one in given if isinstance(given, tuple) else (given,):
            check_limit(metric, one)
