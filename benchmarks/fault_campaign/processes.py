"""Runs in processes of their own: killed at random moments, without a node, on a full disk."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fault_campaign.cases import Case, Ended, NotHereError, judged
from fault_campaign.network import write_job

HOME = Path(__file__).parent.parent
LIMIT = 1800.0
"""Seconds after which a run is said to hang."""


def kills(
    reference: Mapping[str, Any], folder: Path, number: int, rng: random.Random, *, engine: str, entries: int
) -> Case:
    """A run that is killed one to three times, each time soon after a random moment of a random phase, and resumed.

    Args:
        reference: results of an undisturbed one.
        folder: to work in.
        number: of the case.
        rng: chooses.
        engine: on which.
        entries: of the journal of an undisturbed one.
    """
    run, told = folder / "run", []
    shutil.rmtree(run, ignore_errors=True)
    job = write_job(folder / "job.yaml", engine=_engine(engine))
    for _ in range(rng.randint(1, 3)):
        moment, reached = _moment(run, rng, entries)
        how = rng.choices((signal.SIGKILL, signal.SIGTERM, signal.SIGINT), (4, 1, 1))[0]
        process = _start(run, job)
        hit = _until(reached, process)
        time.sleep(rng.uniform(0, 0.3))
        if hit and process.poll() is None:
            told.append(f"{how.name} {moment}")
            process.send_signal(how)
        if how != signal.SIGKILL and told:
            ended = _communicated(process)
            if ended.code not in (0, 128 + how, -how) or "Traceback" in ended.printed:  # -how: after it had ended
                return Case(f"kills, {engine} engine", ", ".join(told), "traceback", f"{ended.code}: {ended.last}")
        _end(process)
    case = judged(f"kills, {engine} engine", ", ".join(told), run, reference, [finished(run, job)])
    return case if told else Case(case.kind, "after its end", "not hit")


def _moment(run: Path, rng: random.Random, entries: int) -> tuple[str, Callable[[], bool]]:
    """The next moment to kill a run at: a file that is not there yet, or an entry of its journal."""
    marks = (
        ".lock", "run.json", "base.json", "base.safetensors", "winner.safetensors", "export/space.json", "arms",
        "measured_latency.json", "result.json", "report.html", "report.md",
    )  # fmt: skip
    left = [mark for mark in marks if not (run / mark).exists()]
    if left and rng.random() < 0.4:
        mark = rng.choice(left)
        return f"at {mark}", (run / mark).exists
    entry = min(_lines(run) + 1 + rng.randrange(max(1, entries - _lines(run))), entries)
    return f"at entry {entry}", partial(_has, run, entry)


def lost_node(reference: Mapping[str, Any], folder: Path, number: int, rng: random.Random) -> Case:
    """A cluster of two nodes on this machine loses the one that works, and gets another.

    Raises:
        NotHereError: Ray is not installed.
    """
    try:
        from ray.cluster_utils import Cluster
    except ImportError as error:
        raise NotHereError("ray is not installed") from error
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
    return judged("lost node", name, run, reference, [ended]) if hit else Case("lost node", name, "not hit")


def full_disk(reference: Mapping[str, Any], folder: Path, number: int, rng: random.Random) -> Case:
    """A disk that is full after some kilobytes, for some seconds: the run waits, or is killed and resumed.

    Raises:
        NotHereError: a file system in memory must not be mounted.
    """
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    job = write_job(folder / "job.yaml")
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        raise NotHereError("a file system in memory must not be mounted")
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
        return case if hit else Case("full disk", name, "not hit")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _engine(name: str) -> str | dict[str, Any]:
    return name if name == "local" else {"name": name, "workers": 1}


def _start(run: Path, job: Path, *, progress: str = "silent", out: Any = subprocess.PIPE) -> subprocess.Popen[str]:
    begun = (run / "run.json").is_file()
    what: Sequence[str] = ("resume", str(run)) if begun else ("search", str(job), "--run-dir", str(run))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HOME), os.environ.get("PYTHONPATH", "")))}
    environment.setdefault("RAY_worker_niceness", "0")  # at Ray's 15, workers get nothing of a busy machine
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
        time.sleep(0.002)
    return False


def _has(run: Path, entries: int) -> bool:
    return _lines(run) >= entries


def _lines(run: Path) -> int:
    journal = run / "journal.log"
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0
