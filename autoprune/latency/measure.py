"""Measuring how long networks take: warm-up, many repeats in turns, percentiles, all conditions stated.

Longer than others, as the conditions, the turns and what is summarised make a measurement only together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.cost.latency.device_profile import Conditions, cpu_name
from autoprune.errors import ConfigError, EvaluationError, blame
from autoprune.latency import BACKENDS
from autoprune.latency.backends.base import Backend, Runner
from autoprune.latency.clock import clock
from autoprune.randomness import untouched
from autoprune.space.copying import copy_network
from autoprune.space.groups import FloatArray
from autoprune.space.tracing.program import Example, call_arguments

LEAST_REPEATS, MOST_REPEATS = 50, 1_000_000
_BURST = 5
"""Timed runs in one turn of a network; one more comes before them, so that its weights are in the caches."""

_QUIET = 5
"""The percentile of the runs that counts as undisturbed."""

AGREED = 0.02
"""What predictions and limits are about is measured until two halves of it differ by no more, in the median network."""

_MOST_TIMES = 5
"""So many times the turns that were asked for, where the machine is so busy that two measurements do not agree."""


@final
@dataclass(frozen=True, slots=True)
class Latency:
    """One forward pass, without gradients.

    Attributes:
        ms: median milliseconds.
        quiet: their 5th percentile: what a run takes where nothing disturbs it. Predictions and limits are about this
            number. On a quiet machine it is the median within a few percent; what else runs there, or beside it on the
            same host, only ever adds.
        quartiles: lower and upper quartile of the milliseconds.
        repeats: timed runs.
        conditions: backend, threads, batch, dtype, memory format, device.
        machine: name of the processor, or of the GPU for a CUDA device.
        versions: of the packages that ran it.
    """

    ms: float
    quiet: float
    quartiles: tuple[float, float]
    repeats: int
    conditions: Conditions
    machine: str
    versions: Mapping[str, str]

    def __str__(self) -> str:
        low, high = self.quartiles
        return (
            f"{self.ms:.4g} ms (undisturbed {self.quiet:.4g}, quartiles {low:.4g} to {high:.4g}, "
            f"{self.repeats} repeats; {self.conditions}; "
            f"{self.machine}; {', '.join(f'{name} {number}' for name, number in self.versions.items())})"
        )

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**plain, "conditions": asdict(self.conditions), "versions": dict(self.versions)}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Latency:
        """What `to_json` gave."""
        low, high = plain["quartiles"]
        return cls(**{**plain, "quartiles": (low, high), "conditions": Conditions(**plain["conditions"])})


def measure(
    network: nn.Module,
    example: Example,
    conditions: Conditions | None = None,
    *,
    repeats: int = LEAST_REPEATS,
    warmup: int = 5,
) -> Latency:
    """Measure one network; see `measure_many`."""
    return measure_many([network], example, conditions, repeats=repeats, warmup=warmup)[0]


def measure_many(
    networks: Sequence[nn.Module],
    example: Example,
    conditions: Conditions | None = None,
    *,
    repeats: int = LEAST_REPEATS,
    warmup: int = 5,
    agree: float | None = None,
    seconds: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Latency]:
    """Measure several networks in turns, so that whatever else the machine does meets all of them alike.

    Each turn goes through all of them in another order: none always follows the same one.

    Args:
        networks: only read; copies run in evaluation mode without gradients.
        example: inputs; its batch is repeated up to the one of the conditions.
        conditions: backend, threads, batch, dtype, memory format and device; the defaults of `Conditions`.
        repeats: timed runs of each network, at least 50.
        warmup: runs of each network before.
        agree: go on, for five times the repeats at most, until what every other turn says and what the others say
            differ by no more than this share in the median network: the longer it takes, the likelier is a quiet
            moment. None never goes on.
        seconds: no new turn begins after so many, however few the repeats.
        progress: called with (turns done, turns) after each turn.

    Raises:
        ConfigError: conditions, repeats or warm-up that this machine or the backend cannot take.
        EvaluationError: a network does not run.
    """
    chosen = conditions or Conditions()
    check_repeats(repeats=repeats, warmup=warmup)
    return _summaries(
        _turns(networks, example, chosen, -(-repeats // _BURST), warmup, agree, progress, seconds), chosen
    )


def measure_twice(
    networks: Sequence[nn.Module],
    example: Example,
    conditions: Conditions | None = None,
    *,
    repeats: int = LEAST_REPEATS,
    warmup: int = 5,
    agree: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Latency], list[Latency]]:
    """Two measurements of each network, one from every other turn: what the machine is like meets both alike.

    How far they are apart is the noise of measuring. For the arguments and errors see `measure_many`; each of the two
    has as many repeats as asked for.
    """
    chosen = conditions or Conditions()
    check_repeats(repeats=repeats, warmup=warmup)
    ms = _turns(networks, example, chosen, 2 * -(-repeats // _BURST), warmup, agree, progress)
    return _summaries(ms[:, ::2], chosen), _summaries(ms[:, 1::2], chosen)


def check_repeats(*, repeats: int, warmup: int = 1) -> None:
    """Check how often a network is run; raises ConfigError where that is too rarely, or without end."""
    for name, given, least in (("repeats", repeats, LEAST_REPEATS), ("warmup", warmup, 1)):
        if given < least:
            raise ConfigError(f"latency: {name} must be at least {least}, got {given}")
        if given > MOST_REPEATS:
            raise ConfigError(f"latency: {name} must be at most {MOST_REPEATS:,}, got {given}")


def _turns(
    networks: Sequence[nn.Module],
    example: Example,
    conditions: Conditions,
    turns: int,
    warmup: int,
    agree: float | None,
    progress: Callable[[int, int], None],
    seconds: float | None = None,
) -> FloatArray:
    """(networks, turns, runs) milliseconds: as many turns as asked for, and as many again until they agree."""
    backend, rng = make_backend(conditions), np.random.default_rng(0)
    started = time.monotonic()
    with running(conditions):
        runs = [ready(backend, network, example, conditions) for network in networks]
        for run in runs:
            with blame(EvaluationError, "the network that is to be measured does not run"):
                clock(run, warmup, conditions)
        ms = np.empty((len(runs), 0, _BURST))
        for _ in range(_MOST_TIMES):
            more = np.empty((len(runs), turns, _BURST))
            for turn in range(turns):
                for number in rng.permutation(len(runs)):
                    runs[number]()
                    more[number, turn] = [clock(runs[number], 1, conditions) for _ in range(_BURST)]
                progress(turn + 1, turns)
                if seconds is not None and time.monotonic() - started > seconds:
                    return np.concatenate([ms, more[:, : turn + 1]], axis=1)
            ms = np.concatenate([ms, more], axis=1)
            if agree is None or _difference(ms) <= agree:
                break
    return ms


def _difference(ms: FloatArray) -> float:
    """Between the undisturbed times of every other turn, in the median network."""
    first, second = (_percentiles(ms[:, start::2])[:, 0] for start in (0, 1))
    return float(np.median(np.abs(second / first - 1.0)))


def _summaries(ms: FloatArray, conditions: Conditions) -> list[Latency]:
    machine, versions = machine_name(conditions.device), backend_versions(make_backend(conditions))
    return [
        Latency(median, quiet, (low, high), ms[0].size, conditions, machine, versions)
        for quiet, low, median, high in _percentiles(ms).tolist()
    ]


def _percentiles(ms: FloatArray) -> FloatArray:
    """(networks, 4) undisturbed time, lower quartile, median and upper quartile."""
    return np.percentile(ms.reshape(len(ms), -1), [_QUIET, 25, 50, 75], axis=1).T


def make_backend(conditions: Conditions) -> Backend:
    """The backend of these conditions.

    Raises:
        RegistryError: there is none of this name.
    """
    backend: Backend = BACKENDS.get(conditions.backend)()
    return backend


def ready(backend: Backend, network: nn.Module, example: Example, conditions: Conditions) -> Runner:
    """A function that runs a copy of the network under these conditions."""
    dtype, layout = getattr(torch, conditions.dtype), torch.channels_last

    def placed(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value.to(conditions.device, dtype if value.is_floating_point() else None)
        return value.contiguous(memory_format=layout) if conditions.channels_last and value.ndim == 4 else value

    args, kwargs = pytree.tree_map(placed, call_arguments(with_batch(example, conditions.batch)))
    with untouched():
        runs = copy_network(network).eval().to(conditions.device, dtype)
        if conditions.channels_last:
            runs = runs.to(memory_format=layout)  # type: ignore[call-overload]
        return backend.ready(runs, args, kwargs, conditions)


def with_batch(example: Example, batch: int) -> Example:
    """The example with its inputs repeated along their first dimension up to this batch; as it is for 0."""
    tensors = [leaf for leaf in pytree.tree_leaves(example) if isinstance(leaf, Tensor) and leaf.ndim]
    if not batch or not tensors:
        return example
    given = len(tensors[0])

    def grown(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.ndim or len(value) != given:
            return value
        return value.repeat(-(-batch // given), *(1,) * (value.ndim - 1))[:batch]

    repeated: Example = pytree.tree_map(grown, example)
    return repeated


@contextmanager
def running(conditions: Conditions) -> Iterator[None]:
    """Inference mode and the threads of the conditions inside; as it was outside.

    Raises:
        ConfigError: there is no such device.
    """
    machine_name(conditions.device)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(conditions.threads)
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


def machine_name(device: str) -> str:
    """The processor, or the GPU of a CUDA device.

    Raises:
        ConfigError: there is no such device here.
    """
    if not device.startswith("cuda"):
        return cpu_name()
    number = int(device.partition(":")[2] or 0)
    if not torch.cuda.is_available() or number >= torch.cuda.device_count():
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise ConfigError(f"latency: device {device!r} is not there ({found} CUDA devices found); choose another one")
    return str(torch.cuda.get_device_name(number))


def backend_versions(backend: Backend) -> dict[str, str]:
    """Versions of the packages that run it."""
    found = {}
    for package in backend.packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
