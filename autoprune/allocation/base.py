"""What a rule is called with, and how it says what it needs beyond scores.

A rule is called as `rule(domain, scores, **settings) -> Widths`. What it needs beyond that it is given by keyword, each
under the name of the need; those keywords are no settings.

*probe*: `probe(rows) -> (N,) scores` of networks of the given widths, higher is better, NaN where one could not be
scored. A run answers with the evaluator of its job, on all validation data, each network once (what is known, also from
other budgets of the job, is not scored again), and counts them in its report.

*filters*: per group and tied set the (set width, n) weights that write each channel.

*slots*: per group the (slots,) scores by the rule's criterion before they are summed to units of width: of each channel
of all tied sets, of each single weight (or block) of a density.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, Widths

Need: TypeAlias = Literal["probe", "filters", "slots"]

NEEDS: tuple[Need, ...] = ("probe", "filters", "slots")

Probe: TypeAlias = Callable[[Sequence[Widths]], FloatArray]
"""Members of the space, inside the budget or not -> (N,) scores, higher is better, NaN where there is none."""

Filters: TypeAlias = Sequence[Sequence[FloatArray]]
"""Per group and tied set (one where nothing is tied) the (set width, n) weights that write each channel."""

_F = TypeVar("_F", bound=Callable[..., Widths])


def allocation(*needs: Need, criterion: str | None = None) -> Callable[[_F], _F]:
    """Mark a rule with what it needs; one without a mark needs scores of the job's criterion, and only those.

    Args:
        needs: what it is given by keyword.
        criterion: whose scores it is called with, unless the job says otherwise for this rule; None: the job's.
    """

    def mark(rule: _F) -> _F:
        rule.needs, rule.criterion = frozenset(needs), criterion  # type: ignore[attr-defined]
        return rule

    return mark


def needs_of(rule: object) -> frozenset[Need]:
    """What a rule needs by keyword.

    Raises:
        ConfigError: it asks for something that rules cannot be given.
    """
    needs: frozenset[Any] = frozenset(getattr(rule, "needs", ()))
    unknown = sorted(str(need) for need in needs - set(NEEDS))
    if unknown:
        raise ConfigError(
            f"an allocation needs {unknown[0]!r}, which rules are not given; there are {', '.join(NEEDS)}"
        )
    return needs


def criterion_of(rule: object) -> str | None:
    """The criterion that a rule is called with by default; None: the job's."""
    named = getattr(rule, "criterion", None)
    return named if isinstance(named, str) else None
