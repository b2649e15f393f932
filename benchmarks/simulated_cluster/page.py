"""The page of `scaling.py`: what was measured, whether the claims hold, and what bounds more workers."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version

from simulated_cluster.clock import Row
from simulated_cluster.lanes import PROCESSES

DEFAULT = "surrogate"
_NAMES = {"actors": "short evaluations", "tune": "trainings", "peer": "the peer"}
_ENOUGH = 0.9


def checks(rows: Sequence[Row]) -> list[tuple[str, bool]]:
    """Claims, each with whether it holds."""
    found = []
    for seconds, workers in ((1.0, 64), (10.0, 256)):
        for controller in (DEFAULT, "random"):
            row = _row(rows, "actors", controller, workers, seconds)
            if row is not None:
                claim = (
                    f"short evaluations, {controller}: at least 90 % utilisation at {workers} workers and "
                    f"{seconds:g} s ({100 * row.utilisation:.0f} %)"
                )
                found.append((claim, row.utilisation >= _ENOUGH))
    ours, peer = (_row(rows, "tune", "random", 64, 10.0), _row(rows, "peer", "OptunaSearch", 64, 10.0))
    if ours is not None and peer is not None:
        claim = (
            f"trainings: at least 90 % utilisation at 64 workers and 10 s ({100 * ours.utilisation:.0f} %; "
            f"OptunaSearch {100 * peer.utilisation:.0f} %)"
        )
        found.append((claim, ours.utilisation >= _ENOUGH))
    return found


def page(rows: Sequence[Row], *, judged: bool) -> str:
    """The whole page."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("autoprune", "ray", "optuna", "numpy"))
    claims = "\n".join(f"- {'holds' if holds else 'DOES NOT HOLD'}: {claim}" for claim, holds in checks(rows))
    return f"""# Scaling: how many workers one driver keeps busy

Written by `python benchmarks/scaling.py` on {date.today()} ({platform.machine()}, {os.cpu_count()} cores, Python
{platform.python_version()}; {versions}).

Evaluations only sleep, for 0.75 to 1.25 times the seconds named. Workers, Ray and the driver share the machine's cores.
Utilisation is the share of the workers' time in which they slept, from when all are there until the last proposal.
Sessions are real: a controller on 16 width groups under a budget, and a ledger on disk. Driver milliseconds are CPU
time of its process per trial, all threads; session milliseconds are wall-clock time of controller and ledger per
trial, with the ledger's waits for the disk: while the session works, nothing else does in the driver.

{"## Claims" if judged else "A quick run; it judges nothing."}

{claims if judged else ""}

## Short evaluations: resident actors

Up to {PROCESSES} processes stand for the workers (async actors), so that 256 fit on one machine.

{_table(rows, "actors")}

## Trainings: Ray Tune, a process for each worker

Actors are reused. Beside our searcher (session, controller, ledger), Ray Tune's own `OptunaSearch` (TPE) on the same
work, without a ledger.

{_table(rows, "tune", "peer")}

{_limits(rows)}
{_ON_PAPER}"""


def _row(rows: Sequence[Row], lane: str, controller: str, workers: int, seconds: float) -> Row | None:
    key = (lane, controller, workers, seconds)
    return next((row for row in rows if (row.lane, row.controller, row.workers, row.seconds) == key), None)


def _table(rows: Sequence[Row], *lanes: str) -> str:
    lines = [
        "| search | workers | evaluation | utilisation | trials per second | driver CPU ms | session ms |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(
        rows, key=lambda r: (lanes.index(r.lane) if r.lane in lanes else 0, r.controller, r.seconds, r.workers)
    ):
        if row.lane in lanes:
            own = "" if row.session_ms is None else f"{row.session_ms:.1f}"
            lines.append(
                f"| {row.controller} | {row.workers} | {row.seconds:g} s | {100 * row.utilisation:.0f} % "
                f"| {row.rate:.1f} | {row.driver_ms:.1f} | {own} |"
            )
    return "\n".join(lines)


def _limits(rows: Sequence[Row]) -> str:
    """What the measured costs allow, in words."""
    lines = ["## What sets the limit", ""]
    for row in rows:
        if row.utilisation < _ENOUGH and (row.workers, row.seconds) in ((64, 1.0), (256, 10.0)):
            per_trial = max(row.driver_ms, row.session_ms or 0.0)
            lines.append(
                f"- {_NAMES[row.lane]} ({row.controller}), {row.workers} workers, {row.seconds:g} s: they would take\n"
                f"  {row.workers / row.seconds:.0f} trials per second; at {row.driver_ms:.1f} ms of CPU in the driver "
                f"and {row.session_ms or 0:.1f} ms in\n  the session one driver makes at most {1e3 / per_trial:.0f}."
            )
    for lane, name in _NAMES.items():
        busiest = max((row for row in rows if row.lane == lane), key=lambda row: row.rate, default=None)
        if busiest is not None:
            workers = {seconds: int(busiest.rate * seconds) for seconds in (1, 10, 600)}
            lines.append(
                f"- {name} ({busiest.controller}): at most {busiest.rate:.0f} trials per second were reached, so one\n"
                f"  driver keeps about {workers[1]:,} workers busy with evaluations of 1 s, {workers[10]:,} with\n"
                f"  10 s, {workers[600]:,} with ten minutes."
            )
    return "\n".join(lines) + "\n"


_ON_PAPER = """
## On paper: 10,000 workers

One driver proposes, writes down, sends and tells each trial, one after the other. With t milliseconds of it per trial,
w workers stay busy as long as an evaluation lasts longer than w × t: 10,000 workers at 10 ms need evaluations of 100 s
and more, at 1 ms of 10 s. In the order in which they become tight:

1. **The ledger.** Its journal waits for the disk three times per trial (start, note, end). Then: all of an end
   in one write, a storage that takes writes of many trials at once (PostgreSQL), or, for evaluations so short that
   repeating one costs less than a write, one write for what ended since the last one.
2. **The controller.** The surrogate already proposes in batches that grow with the number of scores. At 10,000 pending
   proposals a model learns nothing between two of a batch: ask for hundreds at a time, and fit in a process beside.
3. **Ray's calls from one driver.** A call and its answer cost the driver a fraction of a millisecond of CPU;
   `ray.wait` on all open references takes time in proportion to their number, for each answer. Then: two candidates
   in advance per worker, which hides the driver's latency wholly, and one coordinating actor per hundred workers that
   gets a hundred proposals at a time and answers with a hundred scores. The session stays in one place.
4. **Ray's control store.** Starting 10,000 actors takes minutes of the head node's time; it needs a machine of its
   own without workers.
5. **Sending model and data.** The packed setup goes to each node once, not to each worker, and from node to node.
   Data sets that do not fit into the nodes' object stores belong on a shared disk.
6. **Ray Tune** for trainings: its loop handles one event at a time, several for each epoch of each trial, and a
   placement group and a process for each. Trainings with epochs of minutes keep thousands of workers busy. For more,
   one Tune run for each part of the cluster over one ledger (an Optuna storage server), or trainings in the lane of
   short evaluations, whose states on the storage path work the same way.
7. **States.** 10,000 states of 10 MB per epoch of ten minutes are 170 MB/s: object storage, not one NFS server.

Statistics bound earlier than any of these: with 10,000 evaluations at a time, most are spent on what the search would
no longer propose after the first thousand scores.
"""
