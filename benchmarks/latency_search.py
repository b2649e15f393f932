"""A search under a latency budget beside one under the FLOPs of equal latency, both really measured.

    python benchmarks/latency_search.py [--limit 55] [--backend torch] [--batch 8] [--trials 30] [--pin CPU]
                                        [--write docs/results/latency_search.md]

Profiles this device for a ResNet-20 on scikit-learn's digits and searches under a limit in percent of the full
network's predicted latency. Beside it, the run itself searches in the same way under the FLOPs of the uniform network
of that latency; both winners, the uniform networks and the full one are measured in turns and fine-tuned alike. Ends
with an error where the winner of the latency search is measured more than 3 % above its limit. At most ten minutes, no
download.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import autoprune
from autoprune.config.job import Job
from autoprune.config.validation import validated
from autoprune.cost.latency.device_profile import Conditions, DeviceProfile
from autoprune.cost.latency.profile_files import write_profile
from autoprune.latency.profile import build_profile
from autoprune.pipeline.driver import start_job
from autoprune.report.latency import latency_notes, latency_table
from autoprune.verdict.record import RunRecord
from autoprune.zoo import build_model

TOLERANCE = 1.03
"""The claim: the winner is measured at most so many times its limit."""

FACTORY, ARGUMENTS = "resnet20", {"in_channels": 1, "width": 2.0}
EXAMPLE = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def main() -> int:
    """Profile, search, print; return 1 where the claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=55.0, help="percent of the full network's latency")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--trials", type=int, default=30, help="of each of the two searches")
    parser.add_argument("--epochs", type=int, default=8, help="of the base network")
    parser.add_argument("--seeds", type=int, default=3, help="final trainings of each network; 0: none")
    parser.add_argument("--networks", type=int, default=48, help="that the profile is fitted on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pin", type=int, help="run on this processor only")
    parser.add_argument("--write", type=Path, help="a markdown file for the results")
    options = parser.parse_args()
    if options.pin is not None:
        os.sched_setaffinity(0, {options.pin})
    torch.set_num_threads(1)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "profile.json"
        profile = profiled(options)
        write_profile(profile, place)
        print(f"profile: {profile.error} ({time.perf_counter() - started:.0f} s)", flush=True)
        record = searched(place, Path(folder) / "run", options)
    text = page(record, profile, options, time.perf_counter() - started)
    print(text)
    if options.write is not None:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text)
    return 0 if share_of_limit(record) <= TOLERANCE else 1


def profiled(options: argparse.Namespace) -> DeviceProfile:
    """A profile of this device for the network."""
    torch.manual_seed(options.seed)
    model = build_model(FACTORY, ARGUMENTS)
    space = autoprune.trace(model, EXAMPLE)
    return build_profile(
        space.search_space,
        lambda widths: space.slice(model, widths),
        EXAMPLE,
        Conditions(backend=options.backend, batch=options.batch),
        label=FACTORY,
        networks=options.networks,
        repeats=60,
    )


def searched(profile: Path, directory: Path, options: argparse.Namespace) -> RunRecord:
    """The run under the latency budget, with the search by FLOPs beside it."""
    job: dict[str, Any] = {
        "name": directory.name,
        "seed": options.seed,
        "device": "cpu",
        "threads": 1,
        "model": {"factory": FACTORY, "arguments": ARGUMENTS},
        "data": {"name": "digits"},
        "training": {"epochs": options.epochs, "batch_size": 64},
        "constraints": {"latency_ms": f"{options.limit:g}%"},
        "metrics": {"latency_ms": {"profile": str(profile)}},
        "search": {"trials": options.trials},
        "verdict": {"seeds": options.seeds, "protocols": ["fine_tune"], "fine_tune_epochs": 8},
    }
    (record,) = start_job(validated(Job, job, "the benchmark's job"), directory, progress="plain")
    return record


def share_of_limit(record: RunRecord) -> float:
    """The winner's measured latency over its limit."""
    assert record.latency is not None
    quiet: float = record.latency["compared"]["winner"]["latency"]["quiet"]
    return quiet / float(record.latency["limit"])


def page(record: RunRecord, profile: DeviceProfile, options: argparse.Namespace, seconds: float) -> str:
    """The run's own table and notes as a markdown page."""
    table = latency_table(record)
    share = share_of_limit(record)
    winner, rival = ({arm.name: arm.widths for arm in record.arms}.get(name) for name in ("winner", "flops_search"))
    return "\n".join(
        [
            "# A latency budget beside a FLOPs budget of equal latency",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {profile.machine}. Made by `benchmarks/latency_search.py` in "
            f"{seconds / 60:.1f} minutes: ResNet-20 (twice as wide) on scikit-learn's digits, {options.trials} trials "
            f"of each search, {options.seeds} fine-tunings of each network. Table and notes are those of the run's "
            "own report.",
            "",
            f"| {' | '.join(table.header)} |",
            f"|{'---|' * len(table.header)}",
            *(f"| {' | '.join(row)} |" for row in table.rows),
            "",
            *(f"- {note}" for note in latency_notes(record)),
            *(["- Both searches ended with the same network."] if winner == rival else []),
            "",
            f"Claim: the winner is measured at most {TOLERANCE - 1:.0%} above its limit. It is measured at {share:.1%} "
            f"of it: the claim {'holds' if share <= TOLERANCE else 'does not hold'}.",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
