"""Which models can be pruned: every one of a long list is traced and verified, beside what the peers reach.

    python benchmarks/coverage.py [--only PATTERN] [--without-peers] [--jobs 2] [--resume] [--against OLD] [--list]

Walks all classification models of torchvision, timm models of nearly all of its families, and what users ask for most
(YOLO, BERT, GPT-2, ViT, Llama, detection, segmentation, U-Net, LSTM), with random weights. Needs torchvision, timm,
ultralytics and transformers; Torch-Pruning, Model Optimizer and torch-kirigami are measured where they are installed.
About sixty small models, one for each idiom of model code, have a table of their own (`--only 'idiom/*'`). Every model
and tool gets a process of its own with a time limit, so a crash or a hang is a line in the table. Results are appended
to OUT.jsonl as they come, and the table is written to OUT.md at the end. Ends with an error if a claim does not hold.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import importlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import resource
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from coverage_models import catalogue, kirigami_peer, model_optimizer_peer, ours, table, torch_pruning_peer
from coverage_models.catalogue import Entry
from coverage_models.idioms import idioms
from threadpoolctl import threadpool_limits

PACKAGES = (
    "autoprune",
    "torch",
    "torchvision",
    "timm",
    "ultralytics",
    "transformers",
    "torch-pruning",
    "nvidia-modelopt",
    "torch-kirigami",
    "torch_geometric",
)
TOOLS = [ours, torch_pruning_peer, model_optimizer_peer, kirigami_peer]
OUT = Path(__file__).parent.parent / "docs" / "results" / "coverage"


def main() -> int:
    """Measure, write, print, and return 1 where a claim does not hold."""
    options = _options()
    every = [*idioms(), *catalogue.catalogue()]
    entries = [e for e in every if not options.only or _matches(e, options.only)]
    if options.list:
        print("\n".join(f"{entry.label:60} {entry.family:26} {entry.size}" for entry in entries))
        return 0
    if not entries:
        raise SystemExit(f"no model matches {options.only}; see --list")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    lines = options.out.with_suffix(".jsonl")
    if not options.resume and not options.page:
        lines.unlink(missing_ok=True)
    done = table.read(lines)
    about = _about()
    if not options.page:
        _append(lines, {"about": about})
    for tool in [] if options.page else [ours] if options.without_peers else TOOLS:
        if not _load(tool):
            print(f"{tool.NAME} is not installed: left out")
            continue
        limit = options.timeout if tool is ours else options.peer_timeout
        tasks = [(entry, tool) for entry in entries if (entry.label, tool.NAME) not in done]
        for position, result in enumerate(_measured(tasks, options.jobs, limit), start=1):
            _append(lines, result)
            print(f"{position:>4}/{len(tasks)} {table.one_line(result)}", flush=True)
    page = table.page(every, table.read(lines), about, before=table.read(options.against) if options.against else {})
    options.out.with_suffix(".md").write_text(page.text, encoding="utf-8")
    print(page.text)
    return 0 if page.holds else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", action="append", help="a pattern of source/name, such as 'timm/resnet*'; may be repeated"
    )
    parser.add_argument("--without-peers", action="store_true", help="measure autoprune alone")
    parser.add_argument("--jobs", type=int, default=2, help="models measured at the same time, one thread each")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds per model for autoprune")
    parser.add_argument("--peer-timeout", type=float, default=45.0, help="seconds per model for each peer")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write, without suffix")
    parser.add_argument("--resume", action="store_true", help="keep the results that OUT.jsonl has")
    parser.add_argument("--page", action="store_true", help="measure nothing: write OUT.md from OUT.jsonl")
    parser.add_argument("--against", type=Path, help="results (.jsonl) that no model may be worse than")
    parser.add_argument("--list", action="store_true", help="print the models and stop")
    return parser.parse_args()


def _matches(entry: Entry, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(entry.label.lower(), pattern.lower()) for pattern in patterns)


def _about() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "note": catalogue.operators_note(),
        **versions,
    }


def _load(tool: ModuleType) -> bool:
    """Import the tool's libraries here, once, so that the processes forked from here have them."""
    try:
        for name in tool.PRELOAD:
            importlib.import_module(name)
    except ImportError:
        return False
    return True


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


@dataclass(frozen=True)
class _Running:
    entry: Entry
    tool: ModuleType
    process: BaseProcess
    started: float


def _measured(tasks: Sequence[tuple[Entry, ModuleType]], jobs: int, timeout: float) -> Iterator[dict[str, Any]]:
    """Run every task in a forked process, `jobs` at a time, one heavy model at a time; yield results as they come."""
    waiting = list(tasks)
    running: dict[Connection, _Running] = {}
    while waiting or running:
        while len(running) < jobs:
            busy = any(r.entry.heavy for r in running.values())
            index = next((i for i, (entry, _) in enumerate(waiting) if not (busy and entry.heavy)), None)
            if index is None:
                break
            running.update([_start(*waiting.pop(index))])
        ready = wait(list(running), timeout=1.0)
        late = [c for c, r in running.items() if time.monotonic() - r.started > timeout and c not in ready]
        for connection in [c for c in running if c in ready or c in late]:
            yield _finish(connection, running.pop(connection), timeout if connection in late else None)


def _start(entry: Entry, tool: ModuleType) -> tuple[Connection, _Running]:
    context = multiprocessing.get_context("fork")
    ours_end, child_end = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(child_end, entry, tool), daemon=True)
    process.start()
    child_end.close()
    return ours_end, _Running(entry, tool, process, time.monotonic())


def _finish(connection: Connection, task: _Running, timeout: float | None) -> dict[str, Any]:
    head = {"model": task.entry.label, "tool": task.tool.NAME, "seconds": round(time.monotonic() - task.started, 2)}
    if timeout is not None:
        task.process.kill()
        result = {"status": "timeout", "problem": f"no result in {timeout:g} s"}
    else:
        try:
            result = connection.recv()
        except EOFError:
            task.process.join()
            result = {"status": "died", "problem": f"the process ended with code {task.process.exitcode}"}
    task.process.join()
    connection.close()
    return head | result


def _child(connection: Connection, entry: Entry, tool: ModuleType) -> None:
    """Build and measure; what the tool prints is dropped, what it raises is the result."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    torch.set_num_threads(1)
    threadpool_limits(1)
    step = "building the model"
    try:
        model, example = entry.build()
        step = "measuring"
        result = tool.measure(model, example)
    except Exception as error:  # noqa: BLE001 - the worker boundary: any failure of any tool is a line of the table
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        problem = f"{type(error).__name__}: {error} ({place})"
        result = {"status": "crashed" if step == "measuring" else "not built", "problem": problem}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result |= {"memory_mb": usage.ru_maxrss // 1024, "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2)}
    connection.send(result)
    connection.close()


if __name__ == "__main__":
    sys.exit(main())
