"""What a controller costs: milliseconds of ask and tell per trial, ours beside Optuna's TPE.

    python benchmarks/controllers.py [--controllers a,b] [--large 50x1000] [--small 20x600] [--seed 0] [--json]

Runs every controller for 1,000 trials on 50 groups and for 600 trials on 20, on a score that costs nothing, one trial
at a time, on one thread. Times are of the processor, so that other work on the machine changes them little. Printed is
the mean over all trials, and the median over the last tenth, when all data are there; a run ends early after `--limit`
seconds, and says at which trial. Ends with an error if the claims do not hold: evolution at most 2 ms and surrogate at
most 10 ms per trial at 50 groups and 1,000 trials (mean over all), and both less than TPE at 20 groups and 600 trials.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from autoprune.controllers import CONTROLLERS, make_controller
from autoprune.controllers.base import Trial, TrialState
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.testing.spaces import chain_space

CLAIMS = {"evolution": 2.0, "surrogate": 10.0}
"""Milliseconds per trial that the documentation promises at the large size."""

PEER = "optuna:TPESampler"
WIDTH = 128


@dataclass(frozen=True)
class Cost:
    """Milliseconds of processor time of ask and tell per trial, of one run.

    Attributes:
        groups: dimensions of the space.
        reached: trials until the time was up.
        mean: over all trials.
        late: median of the last tenth.
    """

    controller: str
    groups: int
    trials: int
    reached: int
    mean: float
    late: float


def main() -> int:
    """Measure, print, and return 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--controllers", default=",".join([*CONTROLLERS.names(), PEER]), help="names, by commas")
    parser.add_argument("--large", default="50x1000", type=_size, help="groups x trials of the claims")
    parser.add_argument("--small", default="20x600", type=_size, help="groups x trials beside Optuna")
    parser.add_argument("--limit", default=60.0, type=float, help="seconds after which a run ends")
    parser.add_argument("--seed", default=0, type=int)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "scipy", "optuna"))
    if not options.json:
        print(f"{versions}, python {platform.python_version()}, {platform.machine()}")
        print(f"{'controller':<22}{'groups':>7}{'trials':>8}{'ms, mean':>10}{'ms, late':>10}")
    costs = []
    for groups, trials in (options.small, options.large):
        for name in options.controllers.split(","):
            with threadpool_limits(1):
                costs.append(measure(name, groups, trials, seed=options.seed, limit=options.limit))
            if not options.json:
                print(_row(costs[-1]), flush=True)
    broken = broken_claims(costs, options.small, options.large)
    if options.json:
        print(json.dumps({"versions": versions, "costs": [asdict(cost) for cost in costs], "broken": broken}, indent=1))
    for claim in broken:
        print(f"claim does not hold: {claim}", file=sys.stderr)
    return 1 if broken else 0


def measure(name: str, groups: int, trials: int, *, seed: int, limit: float) -> Cost:
    """Run one controller and time every ask and tell."""
    domain = BudgetedSpace(chain_space((WIDTH,) * groups), {"flops": "50%"})
    controller = make_controller(name, domain, seed=seed, settings={}, trials=trials)
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.2, 1.0, groups)
    seconds: list[float] = []
    began = time.perf_counter()
    while len(seconds) < trials and time.perf_counter() - began < limit:
        started = time.process_time()
        (widths,) = controller.ask()
        asked = time.process_time() - started
        score = -float((weights * np.square(np.log(np.array(widths) / WIDTH))).mean()) + 0.01 * rng.standard_normal()
        trial = Trial(len(seconds), widths, TrialState.COMPLETE, score)
        started = time.process_time()
        controller.tell([trial])
        seconds.append(asked + time.process_time() - started)
    late = statistics.median(seconds[-max(1, len(seconds) // 10) :])
    return Cost(name, groups, trials, len(seconds), 1e3 * statistics.fmean(seconds), 1e3 * late)


def broken_claims(costs: list[Cost], small: tuple[int, int], large: tuple[int, int]) -> list[str]:
    """What does not hold, in words."""
    at = {(cost.controller, cost.groups, cost.trials): cost for cost in costs}
    broken = []
    for name, most in CLAIMS.items():
        cost = at.get((name, *large))
        if cost is not None and (cost.mean > most or cost.reached < cost.trials):
            broken.append(f"{name} takes {cost.mean:.1f} ms per trial, not {most:g}")
        ours, peer = at.get((name, *small)), at.get((PEER, *small))
        if ours is not None and peer is not None and ours.mean >= peer.mean:
            broken.append(f"{name} takes {ours.mean:.1f} ms per trial, {PEER} {peer.mean:.1f}")
    return broken


def _row(cost: Cost) -> str:
    early = "" if cost.reached == cost.trials else f"  ended after {cost.reached} trials"
    return f"{cost.controller:<22}{cost.groups:>7}{cost.trials:>8}{cost.mean:>10.2f}{cost.late:>10.2f}{early}"


def _size(text: str) -> tuple[int, int]:
    groups, _, trials = text.partition("x")
    try:
        return int(groups), int(trials)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not GROUPSxTRIALS, for example 50x1000") from None


if __name__ == "__main__":
    sys.exit(main())
