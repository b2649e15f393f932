"""Making a device profile: every kernel of a model at a grid of sizes, then whole networks of random widths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np
from torch import nn

from autoprune.cost.latency.device_profile import Conditions, DeviceProfile, KernelTable
from autoprune.cost.latency.latency_ms import FEATURES, LatencyPrediction, calls_of, missing_kernels
from autoprune.errors import ConfigError
from autoprune.latency.fit import fit, held_out
from autoprune.latency.kernel_times import KernelTimer, time_kernel
from autoprune.latency.measure import (
    AGREED,
    LEAST_REPEATS,
    backend_versions,
    check_repeats,
    machine_name,
    make_backend,
    measure_twice,
    running,
)
from autoprune.space.groups import IntArray, SearchSpace, Widths
from autoprune.space.kinds.base import LACKING
from autoprune.space.tracing.program import Example

ProfileProgress: TypeAlias = Callable[[str, int, int], None]
"""(what is measured, how many are done, how many there are)."""

NETWORKS = 48
LEAST_NETWORKS, _MOST_NETWORKS = 10, 10_000
_LEAST_PASSES, _MOST_PASSES = 2, 8
_SETTLED = 0.05
"""The last pass over the kernels is the one in which no more than this share of them became faster."""


def build_profile(
    space: SearchSpace,
    build: Callable[[Widths], nn.Module],
    example: Example,
    conditions: Conditions | None = None,
    *,
    label: str = "model",
    made_for: str = "",
    networks: int = NETWORKS,
    repeats: int = LEAST_REPEATS,
    seed: int = 0,
    add_to: DeviceProfile | None = None,
    progress: ProfileProgress = lambda what, done, total: None,
) -> DeviceProfile:
    """Measure the kernels of a model and whole networks of it, and fit how the latter follow from the former.

    Args:
        space: of the model, with the calls of its graph.
        build: widths -> a network of them; its weights do not matter.
        example: what the model was traced with.
        conditions: under which everything is measured; those of `add_to` where it is given.
        label: name of the model in the profile.
        made_for: what the profile says it was made for; "" for nothing.
        networks: how many whole networks are measured, 10 to 10,000, or 0 for kernels alone.
        repeats: timed runs of each network, at least 50; it is measured twice, five times as long on a busy machine.
        seed: of the random widths.
        add_to: a profile of this machine that gets the kernels and networks that it lacks.
        progress: told after each kernel and each turn.

    Raises:
        ConfigError: conditions that cannot be met here, or a profile that was made otherwise.
        BudgetError: the space does not know its graph.
        EvaluationError: a network cannot be run.
    """
    if networks and not LEAST_NETWORKS <= networks <= _MOST_NETWORKS:
        raise ConfigError(
            f"latency profile: at least {LEAST_NETWORKS} networks are needed for a fit, got {networks}"
            if networks < LEAST_NETWORKS
            else f"latency profile: at most {_MOST_NETWORKS:,} networks are measured, got {networks}"
        )
    if not 0 <= seed < 2**63:
        raise ConfigError(f"latency profile: seed must be at least 0 and below 2^63, got {seed}")
    if networks:
        check_repeats(repeats=repeats)
    profile = _begun(conditions, add_to, space.traced_batch)
    if made_for and made_for not in profile.made_for:
        profile = replace(profile, made_for=(*profile.made_for, made_for))
    profile = profile.with_tables(_new_tables(profile, space, progress))
    if not networks:
        return profile
    measured = _measured(profile, space, build, example, label, networks, repeats, seed, progress)
    return refitted(replace(profile, networks=(*profile.networks, *measured)))


def refitted(profile: DeviceProfile) -> DeviceProfile:
    """With coefficients and error from its networks."""
    features, ms, rounds = (np.array([n[key] for n in profile.networks]) for key in ("features", "ms", "rounds"))
    error = replace(held_out(features, ms), noise=float(np.median(np.abs(rounds[:, 1] / rounds[:, 0] - 1.0))))
    coefficients = tuple(float(c) for c in fit(features, ms))
    return replace(profile, features=FEATURES, coefficients=coefficients, error=error)


def random_widths(space: SearchSpace, n: int, rng: np.random.Generator) -> IntArray:
    """(n, G) distinct random members but the full one, each around a size of its own and more or less even.

    Widths that are all drawn alone would give networks of nearly the same latency: sums of many vary little. Candidates
    of a search are of any size, some nearly uniform and some not.

    Of what can be left out, each member lacks a random share of at most a half.
    """
    found: dict[Widths, None] = {}
    for _ in range(50 * n):
        middle, spread = rng.uniform(0.15, 1.0), rng.uniform(0.0, 0.5)
        ratios = np.clip(rng.uniform(middle - spread, middle + spread, size=(1, len(space.groups))), 0.0, 1.0)
        chances = rng.random(ratios.shape) - rng.uniform(0.0, LACKING)
        member = space.nearest(space.kinds.decided(space.kinds.drawn(ratios, chances))[0])
        if member != space.full:
            found[member] = None
        if len(found) == n:
            break
    return np.array(list(found), dtype=np.int64)


def _begun(conditions: Conditions | None, add_to: DeviceProfile | None, batch: int) -> DeviceProfile:
    """The profile to add to, or a new one without content, its batch that of the example unless it says another."""
    chosen = conditions or (add_to.conditions if add_to else Conditions())
    chosen = replace(chosen, batch=chosen.batch or batch)
    machine, versions = machine_name(chosen.device), backend_versions(make_backend(chosen))
    if add_to is None:
        return DeviceProfile(chosen, machine, versions, datetime.now(UTC).isoformat(timespec="seconds"))
    for what, theirs, here in (
        ("machine", add_to.machine, machine),
        ("conditions", str(add_to.conditions), str(chosen)),
        ("versions", dict(add_to.versions), versions),
        ("features", add_to.features or FEATURES, FEATURES),
    ):
        if theirs != here:
            raise ConfigError(f"the profile cannot be added to: its {what} are {theirs}, here {here}; make a new one")
    return add_to


def _new_tables(
    profile: DeviceProfile, space: SearchSpace, progress: ProfileProgress
) -> Mapping[str, KernelTable | None]:
    """Tables of the kernels that the profile lacks, or holds for fewer channels only."""
    backend, timers = make_backend(profile.conditions), dict[str, KernelTimer]()
    missing = missing_kernels(profile.tables, space, calls_of(space))
    with running(profile.conditions):
        nothing = backend.idle(profile.conditions)
        idle = min(time_kernel(nothing, profile.conditions) for _ in range(3))
        for name, (kernel, calls) in missing.items():
            rows = np.array([[size(space.full) for size in call.sizes] for call in calls]).reshape(len(calls), -1)
            full = tuple(int(n) for n in rows.max(axis=0))
            known = profile.tables.get(name)
            if known is not None and kernel.table_axes == kernel.axes:  # too narrow, but perhaps not along both axes
                full = tuple(max(n, int(m)) for n, m in zip(full, known.largest, strict=True))
            timers[name] = KernelTimer(backend, kernel, full, profile.conditions, idle)
            progress("sizes", len(timers), len(missing))
        _time(list(timers.values()), progress)
    return {name: timer.table() for name, timer in timers.items()}


def _time(timers: Sequence[KernelTimer], progress: ProfileProgress) -> None:
    """Pass over all kernels until hardly any becomes faster: a busy machine needs more passes than a quiet one."""
    for number in range(1, _MOST_PASSES + 1):
        faster, sizes = 0, 0
        for done, timer in enumerate(timers, 1):
            found = timer.time()
            faster, sizes = faster + found[0], sizes + found[1]
            progress(f"kernels, pass {number}", done, len(timers))
        if number >= _LEAST_PASSES and faster <= _SETTLED * sizes:
            return


def _measured(
    profile: DeviceProfile,
    space: SearchSpace,
    build: Callable[[Widths], nn.Module],
    example: Example,
    label: str,
    n: int,
    repeats: int,
    seed: int,
    progress: ProfileProgress,
) -> Sequence[Mapping[str, Any]]:
    """Random networks with their features and two measurements each."""
    widths = random_widths(space, n, np.random.default_rng(seed))
    widths = np.unique(np.vstack([[space.full], widths]), axis=0)
    rows: list[Widths] = [tuple(int(w) for w in row) for row in widths]
    built = [build(row) for row in rows]
    features = LatencyPrediction(space, replace(profile, coefficients=())).features(widths)
    rounds = measure_twice(
        built,
        example,
        profile.conditions,
        repeats=repeats,
        agree=AGREED,
        progress=lambda done, total: progress("networks", done, total),
    )
    first, second = (np.array([latency.quiet for latency in one]) for one in rounds)
    ms = (first + second) / 2
    return [
        {"model": label, "widths": list(row), "features": values.tolist(), "ms": float(both), "rounds": [one, two]}
        for row, values, both, one, two in zip(rows, features, ms, first.tolist(), second.tolist(), strict=True)
    ]
