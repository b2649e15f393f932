"""One clock for all that is timed: on a busy machine, what other programs take does not count."""

from __future__ import annotations

import importlib.util
import time
from typing import Any

import torch

from autoprune.cost.latency.device_profile import Conditions
from autoprune.latency.backends.base import Runner

resource: Any = importlib.import_module("resource") if importlib.util.find_spec("resource") else None  # not on Windows


def clock(run: Runner, times: int, conditions: Conditions) -> float:
    """Milliseconds of one run, the mean of as many in a row.

    On a GPU by events. On a CPU by the processor time of the thread where there is one only, so that other programs do
    not count: on a busy machine, measuring twice differs by half as much as with the clock on the wall. By that clock
    where there are several threads, or the thread waited for something of its own.
    """
    if conditions.device.startswith("cuda"):
        start, end = _event(), _event()
        start.record()
        for _ in range(times):
            run()
        end.record()
        torch.cuda.synchronize(conditions.device)
        return float(start.elapsed_time(end)) / times
    before = _switches()
    busy, started = time.thread_time(), time.perf_counter()
    for _ in range(times):
        run()
    wall, busy = time.perf_counter() - started, time.thread_time() - busy
    taken_away, waited = (now - then for now, then in zip(_switches(), before, strict=True))
    alone = conditions.threads == 1 and (taken_away > 0 or waited == 0)
    return (min(wall, busy) if alone else wall) * 1e3 / times


def _event() -> Any:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _switches() -> tuple[int, int]:
    """How often this thread lost the processor to others, and how often it waited by itself.

    Where the system does not tell it may wait all the time.
    """
    if resource is None:
        return 0, time.perf_counter_ns()
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_nivcsw, usage.ru_nvcsw
