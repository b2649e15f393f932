"""What a run survives: kills, lost nodes, full disks, damage of every file, damaged journals, mutated jobs.

    python benchmarks/faults.py [--seed 0] [--scale 1.0] [--only KIND,…] [--no-ray] [--out docs/results/faults]

With `--only`, the cases of other kinds that an earlier call has left in OUT.jsonl stay in the table.

Everything random comes from the seed. A small run on the bundled digits is made once; every fault then happens to a
copy of it, or to one that is started, and the run has to come to the very same results: trials, scores, verdict, and
the weights of its networks bit by bit. Cases are appended to OUT.jsonl as they come; the table is written to OUT.md.
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
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from fault_campaign import damage, jobs, processes
from fault_campaign.cases import Case, results
from fault_campaign.network import write_job

OUT = Path(__file__).parent.parent / "docs" / "results" / "faults"
BAD = ("lost", "wrong", "traceback")
COLUMNS = ("survived", "clear error", *BAD, "not hit")
KINDS = {
    "files": ("damaged file", 1000),
    "journals": ("damaged journal", 600),
    "jobs": ("mutated job", 3000),
    "kills": ("kills, local engine", 60),
    "ray-kills": ("kills, ray engine", 20),
    "nodes": ("lost node", 10),
    "disks": ("full disk", 40),
}
"""Kind -> its name, and how many cases at scale 1."""


def main() -> int:
    """Do harm, write, print, and return 1 where something was lost, wrong or a traceback."""
    options = _options()
    chosen = options.only.split(",") if options.only else [*KINDS]
    if options.no_ray:
        chosen = [kind for kind in chosen if kind not in ("ray-kills", "nodes")]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    path = options.out.with_suffix(".jsonl")
    found = _kept(path, [KINDS[kind][0] for kind in chosen])
    with tempfile.TemporaryDirectory() as name, path.open("w", encoding="utf-8") as lines:
        lines.writelines(case.line() + "\n" for case in found)
        lines.flush()
        finished = prepared(Path(name))
        for kind in chosen:
            n = max(1, round(KINDS[kind][1] * options.scale))
            cases = campaign(kind, finished, Path(name), seed=options.seed, n=n)
            found += _written(cases, kind, n, lines)
    there = {case.kind for case in found}
    text = page(found, seed=options.seed, left_out=[name for name, _ in KINDS.values() if name not in there])
    options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    return int(any(case.outcome in BAD for case in found))


def prepared(folder: Path) -> Path:
    """An undisturbed run."""
    job = write_job(folder / "undisturbed.yaml")
    ended = processes.finished(folder / "undisturbed", job)
    if ended.code:
        raise SystemExit(f"the undisturbed run failed:\n{ended.printed}")
    return folder / "undisturbed"


def campaign(kind: str, finished: Path, folder: Path, *, seed: int, n: int) -> Iterator[Case]:
    """The cases of one kind, which depend on the seed alone.

    Args:
        kind: of `KINDS`.
        finished: an undisturbed run.
        folder: to work in.
        seed: of everything random.
        n: how many.
    """
    reference, rng = results(finished), random.Random(f"{seed}/{kind}")
    entries = (finished / "journal.log").read_bytes().count(b"\n")
    work = folder / kind
    work.mkdir()
    ways: Mapping[str, Callable[[], Iterator[Case]]] = {
        "files": lambda: damage.files(finished, reference, work, rng, n),
        "journals": lambda: damage.journals(finished, reference, work, rng, n),
        "jobs": lambda: jobs.jobs(work, rng, n),
        "kills": partial(processes.kills, reference, work, rng, n, engine="local", entries=entries),
        "ray-kills": partial(processes.kills, reference, work, rng, n, engine="ray", entries=entries),
        "nodes": lambda: processes.lost_nodes(reference, work, rng, n),
        "disks": lambda: processes.full_disks(reference, work, rng, n),
    }
    return ways[kind]()


def page(found: Sequence[Case], *, seed: int, left_out: Sequence[str] = ()) -> str:
    """The table of figures, and every case that ended badly."""
    by_kind: dict[str, Counter[str]] = defaultdict(Counter)
    for case in found:
        by_kind[case.kind][case.outcome] += 1
    by_kind["all"] = Counter(case.outcome for case in found)
    lines = [
        "# What a run survives",
        "",
        f"`python benchmarks/faults.py --seed {seed}`, {datetime.date.today()}, {platform.python_version()}.",
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
    lines += [f"- {case.kind}, {case.name}: {case.outcome}: {' '.join(case.told.split())[-300:]}" for case in bad]
    lines += [f"Left out: {', '.join(left_out)}."] if left_out else []
    return "\n".join(lines).rstrip() + "\n"


def _kept(path: Path, anew: Sequence[str]) -> list[Case]:
    """The cases of an earlier call, without those of the kinds that are tried anew."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [case for case in (Case(**json.loads(line)) for line in lines) if case.kind not in anew]


def _written(cases: Iterator[Case], kind: str, n: int, lines: TextIO) -> list[Case]:
    found = []
    for number, case in enumerate(cases, start=1):
        found.append(case)
        lines.write(case.line() + "\n")
        lines.flush()
        if case.outcome in BAD or number % 50 == 0:
            print(f"{kind} {number}/{n}: {case.name}: {case.outcome} {case.told[-200:]}", file=sys.stderr, flush=True)
    return found


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of cases")
    parser.add_argument("--only", default="", help=", ".join(KINDS))
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
