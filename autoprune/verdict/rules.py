"""One-shot rules, each called with what it needs; one that cannot meet the budget is left out with its reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

from autoprune.allocation import ALLOCATIONS
from autoprune.allocation.base import Filters, Probe, criterion_of, needs_of
from autoprune.config.parts import AllocationOptions, ChosenPart, NamedPart
from autoprune.config.settings import bind
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import BudgetError, ConfigError, blame
from autoprune.space.groups import FloatArray, Widths


@final
@dataclass(frozen=True, eq=False)
class RuleInputs:
    """What rules can ask for.

    Attributes:
        scores: criterion -> per group, the (width,) importances by it.
        filters: the weights that write each channel.
        probe: scores networks.
        slots: criterion -> per group, the (slots,) importances by it.
    """

    scores: Callable[[NamedPart], Sequence[FloatArray]]
    filters: Callable[[], Filters]
    probe: Probe
    slots: Callable[[NamedPart], Sequence[FloatArray]]


def criterion_for(chosen: AllocationOptions) -> NamedPart | None:
    """Whose scores a rule is called with: what the job says for it, else what the rule wants; None: the job's.

    Raises:
        RegistryError: no allocation has this name.
    """
    wanted = criterion_of(ALLOCATIONS.get(chosen.name))
    return chosen.criterion or (None if wanted is None else NamedPart(name=wanted))


def called(
    chosen: AllocationOptions, domain: BudgetedSpace, scores: Sequence[FloatArray], inputs: RuleInputs | None
) -> Widths:
    """The widths of one rule.

    Args:
        chosen: the rule.
        domain: the space under its budget.
        scores: importances by the job's criterion.
        inputs: what else rules can ask for; None: nothing, so that every rule is called with `scores`.

    Raises:
        RegistryError: no allocation has this name.
        BudgetError: it cannot meet the budget.
        ConfigError: a setting that it does not have, it needs what there is not, it fails, or gives no member.
    """
    what, rule = f"allocation {chosen.label!r}", bind(ALLOCATIONS, chosen.name, chosen.settings)
    needs = needs_of(ALLOCATIONS.get(chosen.name))
    if needs and inputs is None:
        raise ConfigError(f"{what} needs {' and '.join(sorted(needs))}, and there is no network to ask; leave it out")
    given: dict[str, Any] = {}
    if inputs is not None:
        criterion = criterion_for(chosen)
        scores = scores if criterion is None else inputs.scores(criterion)
        given = {"filters": inputs.filters()} if "filters" in needs else {}
        given |= {"probe": inputs.probe} if "probe" in needs else {}
        if "slots" in needs:
            if criterion is None:
                raise ConfigError(f"{what} needs slots and names no criterion; give it one: {{criterion: …}}")
            given["slots"] = inputs.slots(criterion)
    with blame(ConfigError, f"{what} fails", then="Correct its settings or its code."):
        widths: Widths = rule(domain, scores, **given)
    if widths not in domain.space:
        raise ConfigError(f"{what} must give a tuple of allowed widths, got {widths!r}. Correct its code")
    return widths


def proposals(
    domain: BudgetedSpace,
    scores: Sequence[FloatArray],
    allocations: Sequence[ChosenPart],
    *,
    inputs: RuleInputs | None = None,
    skipped: Callable[[str, str], None] = lambda label, reason: None,
) -> list[tuple[str, Widths]]:
    """(label, widths) of all rules, in order; one that is named twice counts once.

    Args:
        domain: the space under its budget.
        scores: importances by the job's criterion.
        allocations: rules, by name or as a mapping of `name`, `settings` and `criterion`.
        inputs: what else rules can ask for.
        skipped: told the label of a rule that cannot meet the budget, and why.

    Raises: as `called`, but for BudgetError.
    """
    named = [AllocationOptions.of(given, "allocations") for given in allocations]
    found: list[tuple[str, Widths]] = []
    for label, chosen in {chosen.label: chosen for chosen in named}.items():
        try:
            found.append((label, called(chosen, domain, scores, inputs)))
        except BudgetError as error:
            skipped(label, str(error))
    return found
