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
from autoprune.space.groups import SearchSpace

MetricSettings: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Metric -> its settings; metrics that are left out have none."""


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
        found: Any = cost(np.array([space.full, space.smallest]))
    numbers = np.asarray(found)
    real = numbers.dtype.kind in "iuf" and numbers.shape == (2,)
    if not real or not np.isfinite(numbers).all() or numbers.min() < 0:
        raise ConfigError(
            f"metric {name!r} must give (N,) finite costs of at least 0 for (N, G) widths; for the full and the "
            f"smallest network it gave {shortened(repr(found), 80)}. Correct its code"
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


def _needs(name: str, setting: str) -> str:
    how = METRICS.card(name).needs.get(setting, "")
    return (
        f"metric {name!r} needs the setting {setting!r}{how and ': '}{how}. Give it as "
        f"metrics: {{{name}: {{{setting}: …}}}} in the job, or metrics={{{name!r}: {{{setting!r}: …}}}} in Python"
    )
