"""What a run survives: kills, lost nodes, full disks, damage of every file, damaged journals, mutated jobs.

    python benchmarks/faults.py [--seed 0] [--scale 1.0] [--only KIND,…] [--no-ray] [--anew] [--hours H]
                                [--out docs/results/faults]

Every case is drawn from the seed, its kind and its number alone. A small run on the bundled digits is made once; every
fault then happens to a copy of it, or to one that is started, and the run has to come to the very same results: trials,
scores, verdict, and the weights of its networks bit by bit. Cases are appended to OUT.jsonl as they come, and a later
call goes on behind them: several may work at once, each on kinds of its own. The table is written to OUT.md.
Ends with an error if anything was lost, wrong, or a traceback.

Full disks need to mount a file system in memory, lost nodes need ray; what cannot be done here is left out and said.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fault_campaign import damage, jobs, processes
from fault_campaign.cases import Case, NotHereError, results
from fault_campaign.network import LONG, write_job

OUT = Path(__file__).parent.parent / "docs" / "results" / "faults"
BAD = ("lost", "wrong", "traceback")
COLUMNS = ("survived", "clear error", *BAD, "not hit")
KINDS = {
    "files": ("damaged file", 1000),
    "journals": ("damaged journal", 600),
    "snapshots": ("damaged snapshot", 340),
    "jobs": ("mutated job", 3000),
    "kills": ("kills, local engine", 60),
    "ray-kills": ("kills, ray engine", 20),
    "nodes": ("lost node", 10),
    "disks": ("full disk", 40),
}
"""Kind -> its name, and how many cases at scale 1."""
EARLIER = "\n## Earlier, on the code of its day\n\n"
SEEDS = (0, 1)
"""Of the long search whose snapshot is damaged, and of another one."""


def main() -> int:
    """Do harm, write, print, and return 1 where something was lost, wrong or a traceback."""
    options = _options()
    chosen = options.only.split(",") if options.only else [*KINDS]
    if options.no_ray:
        chosen = [kind for kind in chosen if kind not in ("ray-kills", "nodes")]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    path, shown = options.out.with_suffix(".jsonl"), options.out.with_suffix(".md")
    before = earlier(shown.read_text(encoding="utf-8") if shown.is_file() else "", known=path.is_file())
    if options.anew:
        path.unlink(missing_ok=True)
        before = ""
    ends = time.monotonic() + 3600 * options.hours
    with tempfile.TemporaryDirectory() as name:
        finished = prepared(Path(name))
        for kind in chosen:
            known = {case.number for case in kept(path) if (case.kind, case.seed) == (KINDS[kind][0], options.seed)}
            left = [number for number in range(max(1, round(KINDS[kind][1] * options.scale))) if number not in known]
            for case in campaign(kind, finished, Path(name), seed=options.seed, numbers=left):
                _written(case, path)
                if time.monotonic() > ends:
                    break
    found = kept(path)
    text = page(found) + before
    shown.write_text(text, encoding="utf-8")
    print(text)
    return int(any(case.outcome in BAD for case in found))


def prepared(folder: Path) -> Path:
    """An undisturbed run."""
    job = write_job(folder / "undisturbed.yaml")
    ended = processes.finished(folder / "undisturbed", job)
    if ended.code:
        raise SystemExit(f"the undisturbed run failed:\n{ended.printed}")
    return folder / "undisturbed"


def long_runs(folder: Path) -> tuple[Path, Path]:
    """Two runs long enough for a snapshot of their controller."""
    made = []
    for seed in SEEDS:
        run = folder / f"long-{seed}"
        if not run.is_dir():
            ended = processes.finished(run, write_job(folder / f"long-{seed}.yaml", seed=seed, **LONG))
            if ended.code:
                raise SystemExit(f"the long run failed:\n{ended.printed}")
        made.append(run)
    return made[0], made[1]


def campaign(kind: str, finished: Path, folder: Path, *, seed: int, numbers: Collection[int]) -> Iterator[Case]:
    """The cases of these numbers of one kind, each of which depends on the seed, the kind and its number alone.

    Args:
        kind: of `KINDS`.
        finished: an undisturbed run.
        folder: to work in.
        seed: of everything random.
        numbers: of the cases.
    """
    reference = results(finished)
    entries = (finished / "journal.log").read_bytes().count(b"\n")
    work = folder / kind
    work.mkdir()
    if kind == "snapshots":
        finished, other = long_runs(folder)
        reference = results(finished)
    else:
        other = finished
    ways: Mapping[str, Callable[[int, random.Random], Case]] = {
        "files": partial(damage.damaged_file, finished, reference, work),
        "journals": partial(damage.damaged_journal, finished, reference, work),
        "snapshots": partial(damage.damaged_snapshot, finished, other, reference, work),
        "jobs": partial(jobs.mutated_job, work),
        "kills": partial(processes.kills, reference, work, engine="local", entries=entries),
        "ray-kills": partial(processes.kills, reference, work, engine="ray", entries=entries),
        "nodes": partial(processes.lost_node, reference, work),
        "disks": partial(processes.full_disk, reference, work),
    }
    for number in numbers:
        try:
            case = ways[kind](number, random.Random(f"{seed}/{kind}/{number}"))
        except NotHereError as error:
            print(f"{kind}: left out: {error}", file=sys.stderr)
            return
        yield replace(case, seed=seed, number=number)


def page(found: Sequence[Case]) -> str:
    """The table of figures, and every case that ended badly."""
    by_kind: dict[str, Counter[str]] = defaultdict(Counter)
    for case in found:
        by_kind[case.kind][case.outcome] += 1
    left_out = [name for name, _ in KINDS.values() if name not in by_kind]
    by_kind["all"] = Counter(case.outcome for case in found)
    seeds = ", ".join(map(str, sorted({case.seed for case in found})))
    lines = [
        "# What a run survives",
        "",
        f"`python benchmarks/faults.py`, seed {seeds}, {datetime.date.today()}, Python {platform.python_version()}.",
        "",
        "survived: the run ended with the results of an undisturbed one, bit by bit. clear error: a command refused,",
        "with one message that says what is wrong and what to do, and resuming brought the run to its end; of a job:",
        "it was refused. lost: the run could not be brought to its end. wrong: it ended with other results.",
        "",
        f"| fault | tried | {' | '.join(COLUMNS)} |",
        f"| --- |{' ---: |' * (len(COLUMNS) + 1)}",
    ]
    for kind, counts in by_kind.items():
        lines.append(f"| {kind} | {sum(counts.values())} | {' | '.join(str(counts[name]) for name in COLUMNS)} |")
    bad = [case for case in found if case.outcome in BAD]
    lines += ["", "Nothing was lost, wrong or a traceback." if not bad else "Ended badly:", ""]
    lines += [
        f"- {case.kind} {case.number}, {case.name}: {case.outcome}: {' '.join(case.told.split())[-300:]}"
        for case in bad
    ]
    lines += [f"Left out: {', '.join(left_out)}."] if left_out else []
    return "\n".join(lines).rstrip() + "\n"


def earlier(text: str, *, known: bool) -> str:
    """What a page says of cases that are not in the list of cases any more, as a part of the next page.

    Args:
        text: of the page as it is.
        known: whether the list of the cases that its table counts is still there.
    """
    figures, heading, rest = text.partition(EARLIER)
    if known or not figures:
        return heading + rest
    when = next((line.rstrip(".") for line in figures.splitlines() if line.startswith("`python")), "")
    table = [line for line in figures.splitlines() if line.startswith("|")]
    ended = figures.partition(f"{table[-1]}\n")[2].strip() if table else ""
    return "\n".join((EARLIER + f"{when}:", "", *table, "", ended, "")) + rest


def kept(path: Path) -> list[Case]:
    """The cases of earlier calls, in the order of their kinds and numbers."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    order = [name for name, _ in KINDS.values()]
    found = [Case(**json.loads(line)) for line in lines]
    return sorted(found, key=lambda case: (order.index(case.kind), case.seed, case.number))


def _written(case: Case, path: Path) -> None:
    with path.open("a", encoding="utf-8") as lines:
        lines.write(case.line() + "\n")
    if case.outcome in BAD or case.number % 50 == 0:
        print(f"{case.kind} {case.number}: {case.name}: {case.outcome} {case.told[-200:]}", file=sys.stderr, flush=True)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of cases")
    parser.add_argument("--only", default="", help=", ".join(KINDS))
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--anew", action="store_true", help="forget the cases of earlier calls")
    parser.add_argument("--hours", type=float, default=float("inf"), help="end each kind after so long")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
