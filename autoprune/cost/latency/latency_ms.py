"""Milliseconds of one forward pass on one device, predicted from a profile that was measured there.

A network's latency is a sum over the kernels it runs, each looked up in the profile at the sizes that the widths give
it, weighted and completed by what the profile learned from whole networks: cost per call, memory traffic, and how much
faster or slower each kind of kernel runs inside a network than alone.

Longer than others, as a prediction and the checks that its profile fits stand side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from autoprune.cost.latency.device_profile import Conditions, DeviceProfile, HeldOut, KernelTable, cpu_name
from autoprune.cost.latency.kernels import FUSED, DeviceKernel, TimedCall, distinct_kernels, timed_calls
from autoprune.cost.latency.profile_files import read_profile
from autoprune.cost.latency.wider_kernels import covered_calls, full_sizes, reaches
from autoprune.cost.polynomial import CostFunction, Polynomial, WidthMatrix
from autoprune.cost.unpriced import MissingKernelsError, UnpricedError
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, SearchSpace
from autoprune.space.sizes import AffineSize

KINDS = ("convolution", "depthwise", "product", "norm", "elementwise", "other")
TRAFFIC = ("activations", "weights", "fused", "untimed")
FEATURES = ("network", "calls", *KINDS, *TRAFFIC)
"""What a network's latency is a weighted sum of: 1; the number of calls; milliseconds of the kernels of each kind; and
millions of elements: of activations read and written, of weights, of what is fused into other kernels, and of kernels
that cannot be timed alone."""

_MILLION = 1e-6


def latency_ms(
    space: SearchSpace,
    *,
    profile: Path | str | Mapping[str, Any] | DeviceProfile,
    elsewhere: bool = False,
    **conditions: Any,
) -> CostFunction:
    """Return the function (N, G) widths -> (N,) predicted milliseconds.

    Widths that are no whole numbers count as the largest allowed ones that they reach.

    Args:
        space: with the calls of its graph.
        profile: of the device: a file of `autoprune latency profile`, or its content.
        elsewhere: the profile may be of another machine than this one; final networks cannot be measured then.
        **conditions: what the profile is expected to hold for: backend, threads, batch, dtype, device, …

    Raises:
        ConfigError: the profile cannot be read, or is of another machine or of other conditions, which it names; or it
            has no time for the full network.
        BudgetError: kernels of this space are not in the profile, or only narrower ones; names them.
    """
    if space.resolution is not None:
        raise UnpricedError("latency_ms is known at one size of images only; leave resolution or this limit out")
    found = read_profile(profile)
    _check_machine(found, elsewhere=elsewhere)
    _check_conditions(found, conditions)
    prediction = LatencyPrediction(space, found)
    full = float(prediction(np.array([space.full]))[0])
    if not 0 < full < math.inf:
        raise ConfigError(
            f"the device profile of {found.machine} predicts {full:g} ms for the full network, so it says nothing of "
            f"smaller ones; make it anew with: autoprune latency profile MODEL --out FILE"
        )
    return prediction


@final
class LatencyPrediction:
    """Predicted milliseconds of every width vector of a space.

    Args:
        space: with the calls of its graph.
        profile: that holds all its kernels.

    Raises:
        BudgetError: it does not; names the missing ones.
        ConfigError: it is fitted on other features.
    """

    def __init__(self, space: SearchSpace, profile: DeviceProfile) -> None:
        if profile.features not in ((), FEATURES):
            raise ConfigError(
                f"the device profile of {profile.machine} is fitted on {', '.join(profile.features)}, not on "
                f"{', '.join(FEATURES)}: it was made by another version of autoprune; make it anew"
            )
        calls = covered_calls(profile.tables, space, calls_of(space))
        check_covers(profile, space, calls)
        self._profile = profile
        self._coefficients = np.array(profile.coefficients or _as_measured())
        self._floors = [np.array(group.choices, dtype=np.float64) for group in space.groups]
        self._terms = _Terms(space, profile.tables, calls)

    @property
    def error(self) -> HeldOut | None:
        """How wrong predictions with this profile are."""
        return self._profile.error

    def __call__(self, widths: WidthMatrix) -> FloatArray:
        """Return the (N,) milliseconds at the (N, G) widths."""
        milliseconds: FloatArray = self.features(widths) @ self._coefficients
        return milliseconds

    def features(self, widths: WidthMatrix) -> FloatArray:
        """Return the (N, F) values of `FEATURES`."""
        return self._terms.features(self._whole(widths))

    def by_call(self, widths: WidthMatrix) -> list[tuple[TimedCall, FloatArray]]:
        """Each call with its (N,) predicted milliseconds; what a network costs beside its calls is in none of them."""
        return self._terms.by_call(self._whole(widths), self._coefficients)

    def _whole(self, widths: WidthMatrix) -> FloatArray:
        """Widths between whole numbers become the next smaller allowed ones: channel counts have no fractions."""
        w = np.atleast_2d(np.asarray(widths, dtype=np.float64))
        for group in np.flatnonzero((w != np.floor(w)).any(axis=0)):
            choices = self._floors[group]
            broken = w[:, group] != np.floor(w[:, group])
            below = np.searchsorted(choices, w[broken, group], side="right") - 1
            w = w.copy()
            w[broken, group] = choices[np.maximum(below, 0)]
        return w


@final
class _Terms:
    """The calls of a space as arrays: calls of one kernel are looked up together, equal ones once."""

    def __init__(
        self, space: SearchSpace, tables: Mapping[str, KernelTable | None], calls: tuple[TimedCall, ...]
    ) -> None:
        self._calls, self._n_groups = calls, len(space.groups)
        rows: dict[AffineSize, int] = {}
        lookups: dict[tuple[str, tuple[int, ...], int], int] = {}
        self._lookup_of: list[int] = []  # number of its lookup for each call, -1 where it has no table
        for name, (kernel, own) in distinct_kernels(calls).items():
            for call in own if tables[name] is not None else ():
                numbers = tuple(rows.setdefault(size, len(rows)) for size in call.sizes)
                lookups.setdefault((kernel.name, numbers, call.switch), len(lookups))
        kinds = np.zeros((len(KINDS), len(lookups)))
        for call in calls:
            numbers = tuple(rows[size] for size in call.sizes) if tables[call.kernel.name] is not None else ()
            lookup = lookups.get((call.kernel.name, numbers, call.switch), -1)
            self._lookup_of.append(lookup)
            if lookup >= 0:
                kinds[KINDS.index(call.kernel.kind), lookup] += 1
        self._kinds = kinds
        self._constants = np.array([size.constant for size in rows], dtype=np.float64)
        self._linear = np.zeros((len(rows), len(space.groups)))
        for size, row in rows.items():
            for group, multiplicity in size.terms:
                self._linear[row, group] += multiplicity
        kernels = {call.kernel.name: call.kernel for call in calls}
        self._tables = [
            (kernels[name], table, np.array([numbers for _, numbers, _ in keys], dtype=np.int64))
            for name, keys in _by_kernel(lookups).items()
            if (table := tables[name]) is not None
        ]
        self._switches = np.array([switch for _, _, switch in lookups], dtype=np.int64)
        self._paid = [
            call.switch
            for call, lookup in zip(calls, self._lookup_of, strict=True)
            if lookup >= 0 or call.kernel.operator.rstrip("_") not in FUSED
        ]
        self._traffic = _traffic(list(zip(calls, self._lookup_of, strict=True)), self._n_groups)

    def features(self, w: FloatArray) -> FloatArray:
        values = np.zeros((len(w), len(FEATURES)))
        values[:, 0] = 1.0
        values[:, 1] = sum(_there(switch, w) for switch in set(self._paid) for _ in range(self._paid.count(switch)))
        values[:, 2 : 2 + len(KINDS)] = (self._kinds @ self._times(w)).T
        for name, polynomial in self._traffic.items():
            values[:, FEATURES.index(name)] = polynomial(w) * _MILLION
        return values

    def by_call(self, w: FloatArray, coefficients: FloatArray) -> list[tuple[TimedCall, FloatArray]]:
        weights = dict(zip(FEATURES, coefficients, strict=True))
        times = self._times(w)
        shares = []
        for call, lookup in zip(self._calls, self._lookup_of, strict=True):
            fused = lookup < 0 and call.kernel.operator.rstrip("_") in FUSED
            own = np.zeros(len(w)) + (0.0 if fused else weights["calls"]) * _there(call.switch, w)
            if lookup >= 0:
                own = own + weights[call.kernel.kind] * times[lookup]
            for name, polynomial in _traffic([(call, lookup)], self._n_groups).items():
                own = own + weights[name] * polynomial(w) * _MILLION
            shares.append((call, own))
        return shares

    def _times(self, w: FloatArray) -> FloatArray:
        """(L, N) milliseconds of every lookup; 0 where a block is off."""
        sizes = self._linear @ w.T + self._constants[:, None]
        times = np.empty((len(self._switches), len(w)))
        done = 0
        for kernel, table, numbers in self._tables:
            own = [sizes[axis].ravel() for axis in numbers.T]
            if kernel.table_axes != kernel.axes:
                own = [kernel.elements(own)]
            looked_up = np.broadcast_to(table(own), (len(numbers) * len(w),) if own else (1,))
            times[done : done + len(numbers)] = looked_up.reshape(len(numbers), -1)
            done += len(numbers)
        for lookup in np.flatnonzero(self._switches >= 0):
            times[lookup] *= _there(int(self._switches[lookup]), w)
        return times


def _by_kernel(
    lookups: Iterable[tuple[str, tuple[int, ...], int]],
) -> dict[str, list[tuple[str, tuple[int, ...], int]]]:
    """DeviceKernel -> its lookups; those of a kernel follow one another."""
    grouped: dict[str, list[tuple[str, tuple[int, ...], int]]] = {}
    for lookup in lookups:
        grouped.setdefault(lookup[0], []).append(lookup)
    return grouped


def calls_of(space: SearchSpace) -> tuple[TimedCall, ...]:
    """The calls of a space that take time.

    Raises:
        UnpricedError: the space does not know its graph.
    """
    if not space.calls:
        raise UnpricedError(
            "latency_ms needs the calls of the model's graph, which this space does not hold (it was made by hand or "
            "saved by an older version); trace the model anew"
        )
    return timed_calls(space)


def check_covers(profile: DeviceProfile, space: SearchSpace, calls: tuple[TimedCall, ...]) -> None:
    """Check that every kernel is in the profile, at every size that it can have.

    Raises:
        MissingKernelsError: some are not; names the first ones.
    """
    missing = list(missing_kernels(profile.tables, space, calls))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        made_for = f", made for {' and '.join(profile.made_for)}," if profile.made_for else ""
        raise MissingKernelsError(
            f"the device profile of {profile.machine} ({profile.conditions}){made_for} lacks {len(missing)} kernels of "
            f"this network, or holds them for fewer channels only: {', '.join(missing[:3])}{more}"
        )


def missing_kernels(
    tables: Mapping[str, KernelTable | None], space: SearchSpace, calls: tuple[TimedCall, ...]
) -> dict[str, tuple[DeviceKernel, list[TimedCall]]]:
    """The kernels that have no table, or one that ends below their full size."""
    return {
        name: (kernel, own)
        for name, (kernel, own) in distinct_kernels(calls).items()
        if name not in tables or not reaches(tables[name], full_sizes(kernel, own, space))
    }


def _as_measured() -> tuple[float, ...]:
    """Coefficients of a profile without whole networks: kernels as long as they took alone, and nothing else."""
    return tuple(float(name in KINDS) for name in FEATURES)


def _there(switch: int, w: FloatArray) -> FloatArray:
    """(N,) 1 where a call is there, 0 where its block is off."""
    return np.ones(len(w)) if switch < 0 else (w[:, switch] >= 0.5).astype(np.float64)


def _traffic(calls: list[tuple[TimedCall, int]], n_groups: int) -> dict[str, Polynomial]:
    """Elements moved, by what they belong to (see `FEATURES`); what moves nothing is left out."""
    terms: dict[str, list[tuple[int, tuple[AffineSize, ...]]]] = {name: [] for name in TRAFFIC}
    for call, lookup in calls:
        switch = (AffineSize(0, ((call.switch, 1),)),) if call.switch >= 0 else ()
        moved = [(1, (*sizes, *switch)) for sizes in (*call.read, *call.written)]
        fused = lookup < 0 and call.kernel.operator.rstrip("_") in FUSED
        terms["activations" if lookup >= 0 else "fused" if fused else "untimed"] += moved
        if not fused:
            terms["weights"] += [(1, (*sizes, *switch)) for sizes in call.weights]
    return {name: Polynomial(of, n_groups) for name, of in terms.items() if of}


def _check_machine(profile: DeviceProfile, *, elsewhere: bool) -> None:
    if profile.conditions.device == "cpu" and profile.machine != cpu_name() and not elsewhere:
        raise ConfigError(
            f"the device profile is of {profile.machine}, but this machine is {cpu_name()}: make a profile here with "
            f"autoprune latency profile MODEL --out FILE. To search for that machine from here, give latency_ms the "
            f"setting elsewhere: true; final networks are not measured then"
        )


def _check_conditions(profile: DeviceProfile, expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        if name not in Conditions.__dataclass_fields__:
            allowed = ", ".join(Conditions.__dataclass_fields__)
            raise ConfigError(f"latency_ms has no setting {name!r}; allowed: profile, elsewhere, {allowed}")
        measured = getattr(profile.conditions, name)
        if measured != value:
            raise ConfigError(
                f"the device profile holds for {name} {measured!r} ({profile.machine}, {profile.conditions}), but "
                f"{name} {value!r} is asked for; make a profile with that"
            )
