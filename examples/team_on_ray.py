"""A platform team's job: several searches at once on one storage, on Ray, through a driver that is stopped.

    python examples/team_on_ray.py [--trials 16] [--storage postgresql://me:${PASSWORD}@host/name] [--address auto]

Two jobs start together on a fresh storage (SQLite in the folder of the runs, unless told otherwise): one on Ray with
two workers, one in its own process. The driver on Ray gets SIGTERM in the middle of its search, as from SLURM or
Kubernetes, and is resumed with one worker. Then the storage is asked what it holds: no trial is left open. Under
two minutes on two cores; with `--address` on a cluster of yours. docs/tutorials/platform.md explains it.
"""

# ruff: noqa: T201 - it shows what it finds
from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import yaml

AUTOPRUNE = (sys.executable, "-m", "autoprune")
PATIENCE = 300.0
"""Seconds until something has gone wrong."""


def job(name: str, options: argparse.Namespace, engine: str | dict[str, Any]) -> Path:
    """Write a job file."""
    path: Path = options.run / f"{name}.yaml"
    content = {
        "name": name,
        "threads": 1,
        "model": {"factory": "resnet20", "arguments": {"in_channels": 1, "width": 0.25}},
        "data": {"name": "digits"},
        "training": {"epochs": options.epochs, "batch_size": 64},
        "constraints": {"flops": "50%"},
        "search": {"trials": options.trials, "storage": options.storage},
        "verdict": {"seeds": 1, "fine_tune_epochs": 1, "protocols": ["fine_tune"], "latency": False},
        "engine": engine,
    }
    path.write_text(yaml.safe_dump(content))
    return path


def started(run: Path, *arguments: object) -> subprocess.Popen[str]:
    """A process of the command line that writes to a log beside its run."""
    with (run.parent / f"{run.name}.log").open("a") as log:
        return subprocess.Popen([*AUTOPRUNE, *map(str, arguments)], stdout=log, stderr=log, text=True)


def ended(process: subprocess.Popen[str], run: Path, expected: int = 0) -> None:
    """Wait for a process, and show its log where it has failed."""
    if process.wait(PATIENCE) != expected:
        sys.exit(f"exit code {process.returncode}, not {expected}:\n{(run.parent / f'{run.name}.log').read_text()}")


def wait_until(done: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Look again and again, as long as the process works."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline and not done():
        time.sleep(0.2)


def trials(storage: str) -> dict[str, Counter[str]]:
    """Study -> how many of its trials have ended in which state; a stopped driver leaves some as running."""
    url = os.path.expandvars(storage)
    return {
        name: Counter(trial.state.name.lower() for trial in optuna.load_study(study_name=name, storage=url).trials)
        for name in optuna.get_all_study_names(url)
    }


def main() -> None:
    """Start both, stop one, resume it, ask the storage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--storage", help="an Optuna storage URL; ${NAME} is read from the environment")
    parser.add_argument("--address", help="of a Ray cluster; without one an instance starts here")
    parser.add_argument(
        "--run", type=Path, default=Path("runs/team"), help="a new folder; on a cluster on shared storage"
    )
    options = parser.parse_args()
    options.run.mkdir(parents=True)
    options.storage = options.storage or f"sqlite:///{options.run.resolve() / 'team.db'}"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ray = {"name": "ray", "workers": 2} | ({"address": options.address} if options.address else {})

    first, second = options.run / "on_ray", options.run / "alone"
    drivers = {
        run: started(run, "search", job(run.name, options, engine), "--run-dir", run, "--progress", "plain")
        for run, engine in ((first, ray), (second, "local"))
    }

    def at_work() -> bool:
        log = (options.run / "on_ray.log").read_text()
        return "trial " in log

    wait_until(at_work, drivers[first])
    drivers[first].send_signal(signal.SIGTERM)
    stopped = drivers[first].wait(PATIENCE)
    print(f"the driver on Ray was told to end and did, exit code {stopped}; going on with one worker")
    ended(started(first, "resume", first, "--workers", 1, "--progress", "plain"), first)
    ended(drivers[second], second)
    for run in (first, second):
        sentence = next(line for line in (run.parent / f"{run.name}.log").read_text().splitlines() if "At 50 %" in line)
        print(f"{run.name}: {sentence}")
    for name, states in trials(options.storage).items():
        assert states["running"] == states["waiting"] == 0
        print(f"{name}: {dict(states)}")
    print(f"reports: {first / 'report.html'}, {second / 'report.html'}")


if __name__ == "__main__":
    main()
