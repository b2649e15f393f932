"""Runs in processes of their own: killed at random moments, without a node, on a full disk."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fault_campaign.cases import Case, Ended, judged
from fault_campaign.network import write_job

HOME = Path(__file__).parent.parent
LIMIT = 900.0
"""Seconds after which a run is said to hang."""


def kills(
    reference: Mapping[str, Any], folder: Path, rng: random.Random, n: int, *, engine: str, seconds: float
) -> Iterator[Case]:
    """A run that is killed one to three times at random moments and resumed each time.

    Args:
        reference: results of an undisturbed one.
        folder: to work in.
        rng: chooses.
        n: how many runs.
        engine: on which.
        seconds: that an undisturbed one takes.
    """
    for _ in range(n):
        run, told = folder / "run", []
        shutil.rmtree(run, ignore_errors=True)
        job = write_job(folder / "job.yaml", engine=_engine(engine))
        for _ in range(rng.randint(1, 3)):
            process = _start(run, job)
            wait = rng.uniform(0.1, 1.1) * seconds
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                told.append(f"{wait:.1f} s, {_phase(run)}")
            _end(process)
        ended = finished(run, job)
        name = f"{engine}: killed after {'; '.join(told) or 'its end'}"
        yield (
            judged(f"kills, {engine} engine", name, run, reference, [ended])
            if told
            else Case(f"kills, {engine} engine", name, "not hit")
        )


def lost_nodes(reference: Mapping[str, Any], folder: Path, rng: random.Random, n: int) -> Iterator[Case]:
    """A cluster of two nodes on this machine loses the one that works, and gets another."""
    from ray.cluster_utils import Cluster

    for _ in range(n):
        run = folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        try:
            lost = nodes.add_node(num_cpus=1, resources={"spot": 1})
            options = {"address": nodes.address, "workers": 1, "resources": {"spot": 1}}
            process = _start(run, write_job(folder / "job.yaml", engine={"name": "ray", **options}))
            entries = rng.randint(2, 40)
            hit = _until(partial(_has, run, entries), process)
            nodes.remove_node(lost, allow_graceful=False)
            nodes.add_node(num_cpus=1, resources={"spot": 1})
            ended = _communicated(process)
        finally:
            nodes.shutdown()
        name = f"after {entries} entries"
        yield judged("lost node", name, run, reference, [ended]) if hit else Case("lost node", name, "not hit")


def full_disks(reference: Mapping[str, Any], folder: Path, rng: random.Random, n: int) -> Iterator[Case]:
    """A disk that is full after some kilobytes, for some seconds: the run waits, or is killed and resumed.

    Needs to mount a file system in memory; yields nothing where that is not allowed.
    """
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    job = write_job(folder / "job.yaml")
    for number in range(n):
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True
        ).returncode:
            return
        try:
            room, killed, run = rng.randint(0, 220), number % 2 == 1, disk / "run"
            (disk / "fill").write_bytes(bytes((4096 - room) * 1024))
            log = (folder / "log").open("w+")
            process = _start(run, job, progress="plain", out=log)
            hit = _until(lambda: "cannot be written" in (folder / "log").read_text(), process)
            time.sleep(0.5)
            if killed:
                _end(process)
            (disk / "fill").unlink()
            ended = Ended(process.wait(LIMIT), (folder / "log").read_text())
            if killed:
                ended = finished(run, job)
            name = f"{room} kB{', killed' * killed}"
            case = judged("full disk", name, run, reference, [ended])
            yield case if hit else Case("full disk", name, "not hit")
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def _engine(name: str) -> str | dict[str, Any]:
    return name if name == "local" else {"name": name, "workers": 1}


def _start(run: Path, job: Path, *, progress: str = "silent", out: Any = subprocess.PIPE) -> subprocess.Popen[str]:
    begun = (run / "run.json").is_file()
    what: Sequence[str] = ("resume", str(run)) if begun else ("search", str(job), "--run-dir", str(run))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HOME), os.environ.get("PYTHONPATH", "")))}
    call = [sys.executable, "-m", "autoprune", *what, "--progress", progress]
    return subprocess.Popen(
        call, stdout=out, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )


def finished(run: Path, job: Path) -> Ended:
    """How a run ends that is begun, or gone on with."""
    return _communicated(_start(run, job))


def _communicated(process: subprocess.Popen[str]) -> Ended:
    try:
        printed, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        _end(process)
        return Ended(-1, f"it hangs: more than {LIMIT:.0f} s")
    return Ended(process.returncode, printed or "")


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def _until(reached: Any, process: subprocess.Popen[str]) -> bool:
    deadline = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        if reached():
            return True
        time.sleep(0.02)
    return False


def _has(run: Path, entries: int) -> bool:
    return _lines(run) >= entries


def _lines(run: Path) -> int:
    journal = run / "journal.log"
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0


def _phase(run: Path) -> str:
    """How far it was."""
    marks = ("export/architecture.yaml", "winner.safetensors", "journal.log", "base.json", "run.json")
    return next((f"{mark} there, {_lines(run)} entries" for mark in marks if (run / mark).exists()), "nothing there")
