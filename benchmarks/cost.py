"""Costing candidates: the closed form beside fvcore, which counts one really built network at a time.

    python benchmarks/cost.py [--network resnet56] [--seed 0]

Prints candidates per second for batches of 1, 1,000 and 100,000 width vectors, for fvcore on the same machine in the
same run, and the ratio. Ends with an error if a cost differs from fvcore's or the ratio is below the claim (10,000).
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

import autoprune
from autoprune.cost.flops import flops
from autoprune.cost.params import params
from autoprune.cost.polynomial import CostFunction
from autoprune.space.groups import IntArray
from autoprune.space.verify import counted_by_fvcore
from autoprune.zoo import build_model

CLAIM = 10_000
"""The documentation claims that batches of candidates are costed at least this many times faster than by fvcore."""

BATCHES = (1, 1_000, 100_000)
REPEATS = 5


def main() -> int:
    """Measure, print, and return 1 where the claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet56")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    model, example = build_model(options.network), torch.randn(1, 3, 32, 32)
    space = autoprune.trace(model, example)
    inner = space.search_space
    costs = [flops(inner), params(inner)]
    print(
        f"{options.network}: {len(inner.groups)} groups; torch {torch.__version__}, numpy {np.__version__}, "
        f"python {platform.python_version()}, {platform.machine()}, {torch.get_num_threads()} threads"
    )

    def draw(n: int) -> IntArray:
        return np.stack([rng.choice(group.choices, size=n) for group in inner.groups], axis=1)

    ours = {}
    for n in BATCHES:
        widths = draw(n)
        ours[n] = [n / _seconds(_price, costs, widths) for _ in range(REPEATS)]
        print(f"closed form, batch {n:>7,}: {_spread(ours[n])} candidates per second")

    networks = [tuple(int(w) for w in row) for row in draw(REPEATS)]
    rates, wrong = [], 0
    for widths in networks:
        network = space.slice(model, widths)
        rates.append(1 / _seconds(counted_by_fvcore, network, (example,)))
        wrong += counted_by_fvcore(network, (example,)) != space.cost(widths)["flops"]
    print(f"fvcore, built network   : {_spread(rates)} candidates per second (building not counted)")
    ratio = statistics.median(ours[BATCHES[-1]]) / statistics.median(rates)
    print(
        f"ratio in batches of {BATCHES[-1]:,}: {ratio:,.0f} (claim: at least {CLAIM:,}); "
        f"costs that differ from fvcore: {wrong} of {len(networks)}"
    )
    return 1 if wrong or ratio < CLAIM else 0


def _price(costs: list[CostFunction], widths: IntArray) -> None:
    for cost in costs:
        cost(widths)


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def _spread(rates: list[float]) -> str:
    return f"{statistics.median(rates):>12,.1f} (from {min(rates):,.1f} to {max(rates):,.1f})"


if __name__ == "__main__":
    sys.exit(main())
