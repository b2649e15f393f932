"""Every method that has a job in configs/methods/, beside uniform pruning: score, interval, what it cost.

    python benchmarks/methods.py                # all whose result is missing, or of another job
    python benchmarks/methods.py sss bar        # these
    python benchmarks/methods.py --page         # docs/results/methods.md alone, from what is known

Runs lie in runs/methods/; one that was stopped goes on. Results are kept in docs/results/methods.jsonl, a line for each
arm of a method, with a digest of its job.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.pipeline.driver import records_of
from autoprune.registry import Registry, load_object
from autoprune.texts import difference_text, interval_text
from autoprune.verdict.record import RunRecord
from autoprune.verdict.statistics import against_uniform, better_uniform

ROOT = Path(__file__).parent.parent
JOBS, RUNS, RESULTS = ROOT / "configs" / "methods", ROOT / "runs" / "methods", ROOT / "docs" / "results"
KNOWN, PAGE = RESULTS / "methods.jsonl", RESULTS / "methods.md"

TABLES = (
    "autoprune.space.kinds:KIND_PARTS",
    "autoprune.evaluators:EVALUATORS",
    "autoprune.importance:CRITERIA",
    "autoprune.sparsity:SPARSITY",
)
"""Where the cards of methods lie; of two of one name the later one counts."""

CARDS = {"density": "weights", "low": "ranks", "clip": "bits", "width": "blocks"}
"""First word of the name of a job -> the card of what it searches, where that has another name."""

SEARCH = "search of "
"""Begins the name of what has no arm of its own: what is searched, or the criterion that ranks."""

ABOUT = """# Methods, one job each

A narrow ResNet-20 (8, 16, 32 channels) on scikit-learn's digits, one job for each method in
[configs/methods](../../configs/methods), by `make methods`. The budget is half of the FLOPs where a training or a
criterion of channels finds widths; other jobs tell theirs. All arms of a job have the same final training (batch
norms recalibrated, 4 epochs of fine-tuning unless the job says otherwise) with the same three seeds; *difference* is
that of the method and the better uniform network on test data, paired by seed, with its 95 % interval. *Passes* is
what the method's own training cost, in passes over the training data; its widths alone are taken unless *goes on
from* says that its weights are, too, so that it had that much more training than uniform. A *search of* densities,
ranks, bits or with a criterion is compared with uniform widths that have the same weights, ranked alike. Digits are
easy and three seeds few: most intervals hold 0, and a row says that a method runs and what it costs, not that it is
good.

"""


def main() -> None:
    """Run what is missing, and write the page after each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="jobs of configs/methods, without .yaml; none: all that are missing")
    parser.add_argument("--page", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    jobs = {path.stem: path for path in sorted(JOBS.glob("*.yaml"))}
    unknown = sorted(set(arguments.names) - set(jobs))
    if unknown:
        parser.error(f"no job {unknown[0]!r} in {JOBS}; there are {', '.join(jobs)}")
    known = read()
    wanted = () if arguments.page else arguments.names or jobs
    for name, path in ((name, jobs[name]) for name in wanted):
        if any(row["job"] == name and row["digest"] == digest(path) for row in known) and not arguments.names:
            continue
        started = time.perf_counter()
        record = run(name, path)
        rows = [{**row, "digest": digest(path)} for row in rows_of(name, record)]
        known = [row for row in known if row["job"] != name] + rows
        KNOWN.write_text("".join(f"{json.dumps(row)}\n" for row in sorted(known, key=lambda row: row["job"])))
        write_page(known)
        print(f"{name}: {rows[0]['difference'] if rows else 'no arm'} ({time.perf_counter() - started:.0f} s)")
    write_page(known)


def read() -> list[dict[str, Any]]:
    """What is known: a row for each arm."""
    return [json.loads(line) for line in KNOWN.read_text().splitlines()] if KNOWN.is_file() else []


def digest(path: Path) -> str:
    """Of a job file without its comments."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def run(name: str, path: Path) -> RunRecord:
    """The finished run of a job, begun anew where it was of another one; raises where it fails."""
    place = RUNS / f"{name}-{digest(path)}"
    command = (
        ["resume", str(place)] if (place / "run.json").is_file() else ["search", str(path), "--run-dir", str(place)]
    )
    subprocess.run([sys.executable, "-m", "autoprune", *command, "--progress", "silent"], check=True, cwd=ROOT)
    return records_of(place)[0]


def rows_of(name: str, record: RunRecord) -> list[dict[str, Any]]:
    """A row for each arm that a method found; of a job without one the winner's."""
    told: Mapping[str, Any] = record.provenance.get("sparsity", {})
    arms = [arm for arm in record.arms if arm.method] or [record.winner]
    protocol, rows = record.finals[0].protocol, []
    for arm in arms:
        compared = against_uniform(record.finals, protocol, arm.name)
        rival = better_uniform(record.finals, protocol)
        about = told.get(arm.name, {})
        interval = "none"
        if compared is not None and math.isfinite(compared.low):
            interval = interval_text(compared.low, compared.high, record.scale)
        rows.append(
            {
                "job": name,
                "method": arm.method or f"{SEARCH}{name}",
                "score": mean_and_sd(record, arm.name, protocol),
                "uniform": f"{rival} {mean_and_sd(record, rival, protocol)}",
                "difference": "–" if compared is None else difference_text(compared.difference, record.scale),
                "interval": interval,
                "outcome": "–" if compared is None else compared.outcome,
                "passes": about.get("passes"),
                "seconds": about.get("seconds"),
                "from": "its own weights" if arm.start else "the base network",
                "run_seconds": sum(record.provenance.get("seconds", {}).values()),
            }
        )
    return rows


def mean_and_sd(record: RunRecord, arm: str, protocol: str) -> str:
    """Of the scores of an arm over its seeds."""
    scores = [final.score for final in record.finals if (final.arm, final.protocol) == (arm, protocol)]
    return f"{np.mean(scores):.2f} ± {np.std(scores, ddof=1):.2f}" if len(scores) > 1 else f"{scores[0]:.2f}"


def sources() -> dict[str, str]:
    """Name of a method -> who described it."""
    tables: list[Registry] = [load_object(path) for path in TABLES]
    return {name: card.source for table in tables for name, card in table.cards().items()}


def write_page(known: Sequence[Mapping[str, Any]]) -> None:
    """Write docs/results/methods.md."""
    by = sources()
    header = ("method", "source", "score, %", "better uniform, %", "difference", "95 % interval", "goes on from")
    lines = [f"| {' | '.join((*header, 'passes', 'seconds', 'whole job, s'))} |", f"|{'---|' * (len(header) + 3)}"]
    for row in sorted(known, key=lambda row: (row["job"], row["method"])):
        card = CARDS.get(row["job"].partition("_")[0], row["job"])
        source = by.get(card if row["method"].startswith(SEARCH) else row["method"].partition("(")[0], "")
        cost = ["–" if row[key] is None else f"{row[key]:.3g}" for key in ("passes", "seconds")]
        cells = (
            f"[{row['method']}](../../configs/methods/{row['job']}.yaml)",
            source,
            row["score"],
            row["uniform"],
            row["difference"],
            f"{row['interval']} ({row['outcome']})",
            row["from"],
            *cost,
            f"{row['run_seconds']:.0f}",
        )
        lines.append(f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |")
    missing = sorted({path.stem for path in JOBS.glob("*.yaml")} - {row["job"] for row in known})
    tail = f"\nNot run yet: {', '.join(missing)}; `make methods` runs them.\n" if missing else ""
    PAGE.write_text(ABOUT + "\n".join(lines) + "\n" + tail)


if __name__ == "__main__":
    main()
