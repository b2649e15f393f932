"""A search under a latency budget beside one under the FLOPs of equal latency, both really measured.

    python benchmarks/latency_search.py [--limit 55] [--backend torch] [--batch 8] [--trials 30] [--write FILE]

Profiles this device for a ResNet-20 on scikit-learn's digits, searches under a limit in percent of the full network's
predicted latency, then under the FLOPs of the uniform network of that latency, and measures both winners and the
uniform network in turns. Ends with an error where the winner of the latency search is measured more than 3 % above its
limit. About five minutes, no download.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import autoprune
from autoprune.config import Job, validated
from autoprune.cost.device_profile import Conditions, DeviceProfile, write_profile
from autoprune.cost.repair import BudgetedSpace
from autoprune.latency.finals import flops_of_equal_latency
from autoprune.latency.measure import measure_many
from autoprune.latency.profile import build_profile
from autoprune.pipeline.driver import run_job
from autoprune.space.groups import Widths
from autoprune.traced import Space
from autoprune.zoo import build_model

TOLERANCE = 1.03
"""The claim: the winner is measured at most so many times its limit."""

MODEL = {"factory": "resnet20", "arguments": {"in_channels": 1, "width": 2.0}}
EXAMPLE = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Row:
    """One network: its search score in percent, predicted and measured milliseconds, and FLOPs."""

    name: str
    score: float | None
    predicted: float
    measured: float
    flops: float


def main() -> int:
    """Profile, search twice, measure, print; return 1 where the claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=55.0, help="percent of the full network's latency")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="a markdown file for the table")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = build_model(MODEL["factory"], MODEL["arguments"])  # type: ignore[arg-type]
    space = autoprune.trace(model, EXAMPLE)
    conditions = Conditions(backend=options.backend, batch=options.batch)
    profile = build_profile(
        space.search_space, lambda w: space.slice(model, w), EXAMPLE, conditions, label="resnet20", repeats=60
    )
    print(f"profile: {profile.error}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.json"
        write_profile(profile, path)
        settings = {"latency_ms": {"profile": str(path)}}
        budget = f"{options.limit:g}%"
        domain = BudgetedSpace(space.search_space, {"latency_ms": budget}, metrics=settings)
        equal = flops_of_equal_latency(domain)
        by_latency = winner_of({"latency_ms": budget}, settings, options, Path(folder) / "latency")
        by_flops = winner_of({"flops": equal}, settings, options, Path(folder) / "flops")
    named = {
        "latency budget": by_latency,
        "FLOPs of equal latency": by_flops,
        "uniform": (domain.uniform(), None),
        "full": (space.full, None),
    }
    rows = measured_rows(named, domain, space, model, profile)
    limit = domain.budget.limits[0].upper
    text = page(rows, limit, profile, options)
    print(text)
    if options.write is not None:
        options.write.write_text(text)
    return 0 if rows[0].measured <= TOLERANCE * limit else 1


def winner_of(
    constraints: dict[str, Any], metrics: dict[str, Any], options: argparse.Namespace, directory: Path
) -> tuple[Widths, float | None]:
    """Widths and search score of the network that wins under these limits."""
    job = {
        "name": directory.name,
        "seed": options.seed,
        "device": "cpu",
        "threads": 1,
        "model": MODEL,
        "data": {"name": "digits"},
        "training": {"epochs": options.epochs, "batch_size": 64},
        "constraints": constraints,
        "metrics": metrics,
        "search": {"trials": options.trials},
        "verdict": {"seeds": 0},
    }
    record = run_job(validated(Job, job, "the benchmark's job"), directory, progress="silent")
    return record.winner.widths, record.winner.search_score


def measured_rows(
    named: dict[str, tuple[Widths, float | None]],
    domain: BudgetedSpace,
    space: Space,
    model: torch.nn.Module,
    profile: DeviceProfile,
) -> list[Row]:
    """All networks, measured in turns."""
    widths = [row for row, _ in named.values()]
    networks = [space.slice(model, row) for row in widths]
    found = measure_many(networks, EXAMPLE, profile.conditions, repeats=200)
    costs = domain.costs(np.array(widths))
    return [
        Row(name, score, float(costs["latency_ms"][i]), found[i].quiet, float(costs["flops"][i]))
        for i, (name, (_, score)) in enumerate(named.items())
    ]


def page(rows: list[Row], limit: float, profile: DeviceProfile, options: argparse.Namespace) -> str:
    """The networks as a markdown table."""
    lines = [
        f"| {row.name} | {'' if row.score is None else f'{100 * row.score:.1f} %'} | {row.predicted:.3f} "
        f"| {row.measured:.3f} | {row.measured / limit:.1%} | {row.flops / 1e6:.2f} M |"
        for row in rows
    ]
    return "\n".join(
        [
            f"Limit {limit:.3f} ms ({options.limit:g} % of the full network's predicted latency); {profile.machine}, "
            f"{profile.conditions}; {options.trials} trials. Measured: lower quartile of 200 runs in turns.",
            "",
            "| network | validation score | predicted ms | measured ms | measured, of the limit | FLOPs |",
            "|---|---|---|---|---|---|",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
