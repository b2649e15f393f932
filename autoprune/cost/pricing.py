"""Metrics with their settings: `factory(space, **settings)` gives the cost function."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

import numpy as np

from autoprune.config.settings import bind, missing_settings
from autoprune.cost import METRICS
from autoprune.cost.polynomial import CostFunction
from autoprune.cost.unpriced import UnpricedError
from autoprune.errors import ConfigError, blame, shortened
from autoprune.space.groups import IntArray, SearchSpace

MetricSettings: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Metric -> its settings; metrics that are left out have none."""

_TRIED = 64  # networks that a metric is asked for before it is relied on


def make_metric(name: str, space: SearchSpace, settings: Mapping[str, Any]) -> CostFunction:
    """Build one metric's cost function.

    Raises:
        RegistryError: no metric has this name.
        ConfigError: a setting that it does not take, or of a wrong value; or what it gives are no costs.
        UnpricedError: a setting that it needs is missing, or the space lacks what it is computed from.
    """
    missing = missing_settings(METRICS.get(name), settings, called_with=METRICS.called_with)
    if missing:
        raise UnpricedError(_needs(name, missing[0]))
    metric = bind(METRICS, name, settings)
    with blame(ConfigError, f"metric {name!r} fails with settings {dict(settings)}", then="Correct its settings."):
        cost: CostFunction = metric(space)
        tried = _members(space)
        fault = _fault(cost(tried), tried)
    if fault:
        raise ConfigError(
            f"metric {name!r} must give (N,) finite costs of at least 0 for (N, G) widths; {fault}. Correct its code"
        )
    return cost


def price(
    space: SearchSpace, settings: MetricSettings | None = None, *, wanted: Collection[str] = ()
) -> dict[str, CostFunction]:
    """All metrics that can be computed, in the order of the table.

    Args:
        space: what is costed.
        settings: of metrics that need some or take some.
        wanted: metrics that must be among them.

    Raises:
        RegistryError: settings for, or wanted, a metric that does not exist.
        ConfigError: wrong settings.
        UnpricedError: one of the wanted cannot be computed.
    """
    given = settings or {}
    for name in (*given, *wanted):
        METRICS.get(name)  # raises with a suggestion
    priced = {}
    for name in METRICS.names():
        try:
            priced[name] = make_metric(name, space, given.get(name, {}))
        except UnpricedError:
            if name in wanted:
                raise
    return priced


def _members(space: SearchSpace) -> IntArray:
    """(N, G) the full network, the smallest one, and others, the same ones at every call."""
    rng = np.random.default_rng(0)
    tried = np.tile(np.array(space.full, dtype=np.int64), (_TRIED, 1))
    for column, group in enumerate(space.groups):
        tried[1:, column] = rng.choice(group.choices, size=_TRIED - 1)
    tried[1] = space.smallest
    return tried


def _fault(found: Any, tried: IntArray) -> str:
    """What is wrong with the costs of these widths; empty where nothing is."""
    numbers = np.asarray(found)
    if numbers.dtype.kind not in "iuf" or numbers.shape != (len(tried),):
        return f"for {len(tried)} networks it gave {shortened(repr(found), 80)}"
    for widths, cost in zip(tried, numbers, strict=True):
        if not (np.isfinite(cost) and cost >= 0):
            return f"for the widths {shortened(', '.join(map(str, widths)), 80)} it gave {cost}"
    return ""


def _needs(name: str, setting: str) -> str:
    how = METRICS.card(name).needs.get(setting, "")
    return (
        f"metric {name!r} needs the setting {setting!r}{how and ': '}{how}. Give it as "
        f"metrics: {{{name}: {{{setting}: …}}}} in the job, or metrics={{{name!r}: {{{setting!r}: …}}}} in Python"
    )
