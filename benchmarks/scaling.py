"""How many workers one driver keeps busy: simulated evaluations on Ray, both lanes, and Ray Tune's OptunaSearch.

    python benchmarks/scaling.py [--quick] [--seed 0] [--out PAGE.md]

Evaluations sleep 0.1, 1 and 10 s (each up to a quarter more or less) for 2, 16, 64 and 256 workers in one Ray instance;
the sessions are real ones: controller, 16 width groups under a budget, and a ledger on disk. For each it measures

- utilisation: the share of the workers' time in which they slept, from when all are there until the last proposal;
- the driver's CPU milliseconds per trial, and the milliseconds that the session takes of its one thread (controller and
  ledger, which waits for the disk).

In the lane of short evaluations a process stands for many workers (an async actor). Ray Tune has a process for each
trial: as many as the memory holds, up to 64. Takes a quarter of an hour, `--quick` a minute or two; ends with an error
if a claim does not hold.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ |= {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}

import ray
from simulated_cluster.clock import Row
from simulated_cluster.lanes import on_actors, on_tune
from simulated_cluster.page import DEFAULT, checks, page

OUT = Path(__file__).parent.parent / "docs" / "results" / "scaling.md"


def main() -> int:
    """Measure, write, print; 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few workers, short evaluations; judges nothing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where to write the page; default: docs/results/scaling.md")
    options = parser.parse_args()
    rows: list[Row] = []
    for found in (quick if options.quick else full)(options.seed):
        for row in found:
            print(row, file=sys.stderr, flush=True)
        rows += found
    text = page(rows, judged=not options.quick)
    out = options.out or (None if options.quick else OUT)
    if out is not None:
        out.write_text(text, encoding="utf-8")
    print(text)
    return 0 if options.quick or all(holds for _, holds in checks(rows)) else 1


def full(seed: int):
    """Every measurement, one after the other."""
    for workers in (2, 16, 64, 256):
        for seconds in (0.1, 1.0, 10.0):
            yield _with_ray(on_actors, workers, seconds, "random", seed)
            if seconds < 10 or workers == 256:
                yield _with_ray(on_actors, workers, seconds, DEFAULT, seed)
    for workers, phases in ((2, (0.1, 1.0)), (16, (0.1, 1.0)), (64, (0.1, 1.0, 10.0))):
        yield _with_ray(on_tune, workers, phases, "random", seed)
        yield _with_ray(on_tune, workers, phases, None, seed)
    yield _with_ray(on_tune, 16, (0.1, 1.0), DEFAULT, seed)


def quick(seed: int):
    """A few of them."""
    yield _with_ray(on_actors, 16, 0.1, "random", seed)
    yield _with_ray(on_actors, 16, 1.0, DEFAULT, seed)
    yield _with_ray(on_tune, 4, (0.1, 1.0), "random", seed)
    yield _with_ray(on_tune, 4, (0.1, 1.0), None, seed)


def _with_ray(measure, *arguments) -> list[Row]:
    """Measure in a Ray instance of its own: what earlier ones left in it costs nothing."""
    ray.init(
        address="local",
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=10**9,
    )
    try:
        return measure(*arguments)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
