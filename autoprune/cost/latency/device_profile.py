"""Device profiles: measured times of kernels on one machine, and how whole networks follow from them; a JSON file."""

from __future__ import annotations

import itertools
import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, final

import numpy as np

from autoprune.errors import ConfigError, shortened, suggest
from autoprune.space.groups import FloatArray

FORMAT = 1
DTYPES = ("float32", "float16", "bfloat16")


@final
@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which a latency is measured and holds.

    Attributes:
        backend: name in `autoprune.latency.BACKENDS`.
        threads: CPU threads of the operators.
        batch: inputs at once; 0 as many as in the example.
        dtype: of weights and inputs.
        channels_last: memory format of weights and images.
        device: "cpu", "cuda" or "cuda:N".
        fold_batch_norm: fold norms into convolutions before running; backends that compile do so by themselves.

    Raises:
        ConfigError: a value out of range.
    """

    backend: str = "torch"
    threads: int = 1
    batch: int = 0
    dtype: str = "float32"
    channels_last: bool = False
    device: str = "cpu"
    fold_batch_norm: bool = False

    def __post_init__(self) -> None:
        for name, least, most in (("threads", 1, 1024), ("batch", 0, 1_000_000)):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not least <= value <= most:
                bound = f"at most {most:,}" if whole and value > most else f"at least {least}"
                raise ConfigError(
                    f"latency: {name} must be a whole number of {bound}, got {shortened(repr(value), 60)}"
                )
        for name in ("channels_last", "fold_batch_norm"):
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigError(f"latency: {name} must be true or false, got {shortened(repr(value), 60)}")
        if not isinstance(self.backend, str) or len(self.backend) > 100:
            raise ConfigError(f"latency: backend must be a name, got {shortened(repr(self.backend), 60)}")
        if self.dtype not in DTYPES:
            hint = suggest(str(self.dtype), DTYPES)
            raise ConfigError(
                f"latency: dtype must be one of {', '.join(DTYPES)}, got {shortened(repr(self.dtype), 60)}.{hint}"
            )
        if not re.fullmatch(r"cpu|cuda(:\d+)?", str(self.device)):
            raise ConfigError(f"latency: device must be cpu, cuda or cuda:N, got {shortened(repr(self.device), 60)}")

    def __str__(self) -> str:
        parts = [self.backend, f"{self.device}", f"{self.threads} thread{'s' * (self.threads > 1)}"]
        parts += [f"batch {self.batch or 'of the example'}", self.dtype]
        parts += ["channels last"] * self.channels_last + ["batch norm folded"] * self.fold_batch_norm
        return ", ".join(parts)


@final
@dataclass(frozen=True, eq=False)
class Grid:
    """Times at a grid of sizes, multilinear in between and constant outside.

    Attributes:
        axes: ascending sizes, one (n,) array for each axis; none for a kernel whose sizes are all fixed.
        ms: (n, …) milliseconds.
    """

    axes: tuple[FloatArray, ...]
    ms: FloatArray

    def __call__(self, sizes: Sequence[FloatArray]) -> FloatArray:
        """Return (N,) milliseconds at as many (N,) sizes as there are axes."""
        if not self.axes:
            return self.ms.reshape(1)
        low, part = zip(*(_cell(axis, size) for axis, size in zip(self.axes, sizes, strict=True)), strict=True)
        times: FloatArray = np.zeros(len(low[0]))
        for corner in itertools.product((0, 1), repeat=len(self.axes)):
            shares = [share if up else 1 - share for up, share in zip(corner, part, strict=True)]
            index = [np.minimum(i + up, n - 1) for i, up, n in zip(low, corner, self.ms.shape, strict=True)]
            times += self.ms[tuple(index)] * math.prod(shares)
        return times


def _cell(axis: FloatArray, size: FloatArray) -> tuple[Any, FloatArray]:
    """The grid point below each size, and how far the size is on the way to the next one."""
    low = np.clip(np.searchsorted(axis, size, side="right") - 1, 0, max(0, len(axis) - 2))
    step = np.diff(axis, append=axis[-1] + 1.0)[low]
    return low, np.clip((size - axis[low]) / step, 0.0, 1.0)


@final
@dataclass(frozen=True, eq=False)
class KernelTable:
    """Measured times of one kernel.

    Attributes:
        alignment: sizes that are multiples of it run other code than those that are not; 1: all run the same.
        grids: one for each combination of axes that are multiples, (multiple, multiple) first; a single one for 1.
    """

    alignment: int
    grids: tuple[Grid, ...]

    @property
    def largest(self) -> tuple[float, ...]:
        """The largest measured size along each axis."""
        return tuple(float(max(axis[-1] for axis in axes)) for axes in zip(*(g.axes for g in self.grids), strict=True))

    def __call__(self, sizes: Sequence[FloatArray]) -> FloatArray:
        """Return (N,) milliseconds at as many (N,) sizes as there are axes."""
        if len(self.grids) == 1:
            return self.grids[0](sizes)
        number = np.zeros(len(sizes[0]), dtype=np.int64)
        for size in sizes:
            number = 2 * number + (np.floor(size) % self.alignment != 0)
        times = np.empty(len(number))
        for index in np.unique(number):
            here = number == index
            times[here] = self.grids[index]([size[here] for size in sizes])
        return times


@final
@dataclass(frozen=True, slots=True)
class HeldOut:
    """How well networks are predicted whose measurement the fit did not use.

    Attributes:
        networks: how many.
        median: median absolute relative error.
        p90: 90th percentile of it.
        spearman: rank correlation of predicted and measured latency.
        noise: median absolute relative difference of measuring the same network twice.
    """

    networks: int
    median: float
    p90: float
    spearman: float
    noise: float

    def __str__(self) -> str:
        return (
            f"median error {self.median:.1%} (90 % within {self.p90:.1%}) on {self.networks} networks that the fit had "
            f"not seen; measuring twice differs by {self.noise:.1%}"
        )


@final
@dataclass(frozen=True, eq=False)
class DeviceProfile:
    """What `autoprune latency profile` writes.

    Attributes:
        conditions: under which everything was measured.
        machine: name of the processor, or of the GPU for a CUDA device.
        versions: of the packages that ran the kernels.
        date: when it was made, UTC.
        tables: name of a kernel -> its times; None where it cannot be timed alone.
        features: what whole networks are fitted on; see `latency_ms.FEATURES`.
        coefficients: one for each feature.
        networks: measured networks: model, widths, values of the features, undisturbed milliseconds of each of two
            measurements, and their mean.
        error: on networks held out; None before there are any.
        made_for: the models whose kernels it holds, as the arguments of `autoprune latency profile`; profiles of older
            versions name none.
    """

    conditions: Conditions
    machine: str
    versions: Mapping[str, str]
    date: str
    tables: Mapping[str, KernelTable | None] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    coefficients: tuple[float, ...] = ()
    networks: tuple[Mapping[str, Any], ...] = ()
    error: HeldOut | None = None
    made_for: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        if not self.made_for:  # fingerprints of profiles stay
            del plain["made_for"]
        plain |= {"conditions": asdict(self.conditions), "error": None if self.error is None else asdict(self.error)}
        plain["tables"] = {
            name: table
            and {
                "alignment": table.alignment,
                "grids": [{"axes": [_numbers(a) for a in g.axes], "ms": g.ms.tolist()} for g in table.grids],
            }
            for name, table in self.tables.items()
        }
        return {"format": FORMAT, **plain, "versions": dict(self.versions), "networks": list(map(dict, self.networks))}

    def with_tables(self, tables: Mapping[str, KernelTable | None]) -> DeviceProfile:
        """With more kernels."""
        return replace(self, tables={**self.tables, **tables})


def cpu_name() -> str:
    """The processor of this machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _numbers(axis: FloatArray) -> list[int | float]:
    return [int(x) if float(x).is_integer() else float(x) for x in axis]
