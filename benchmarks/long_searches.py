"""Long searches: the seconds of a proposal at many groups, of a resumption, and the size of a report of many trials.

    python benchmarks/long_searches.py [--quick] [--seed 0] [--anew] [--out docs/results/long_searches]

- proposal: processor seconds of one proposal of the default controller, 200 trials told, at 500 width groups;
- resumption: processor seconds until a search of 2,000 trials of the default controller that was stopped can go on
  from the last snapshot of its controller, half of an interval old; beside it those of a replay, without snapshots;
- report: bytes of report.html of a run of 5,000 trials, and the seconds that writing it takes.

Scores are functions of widths, so nothing is trained. Rows are appended to OUT.jsonl as they come, and those that an
earlier call has left are not measured again; the page is OUT.md. Takes half an hour, `--quick` a minute. Ends with an
error if a claim does not hold: PROPOSAL and RESUMPTION seconds, REPORT bytes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn

import autoprune
from autoprune.config.job import SearchOptions
from autoprune.controllers import make_controller
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.report.pages import write_reports
from autoprune.space.groups import Widths
from autoprune.testing.spaces import chain_space
from autoprune.trials.assignment import Outcome
from autoprune.trials.ledger import Ledger, open_storage
from autoprune.trials.session import SearchSession
from autoprune.trials.snapshots import EVERY, SNAPSHOT, Snapshots

OUT = Path(__file__).parent.parent / "docs" / "results" / "long_searches"
PROPOSAL, RESUMPTION, REPORT = 0.3, 10.0, 2_000_000
DEFAULT = SearchOptions().controller.name

Row = dict[str, Any]


def main() -> int:
    """Measure what is not known yet, write, print; 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything; judges nothing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--anew", action="store_true", help="forget the rows of earlier calls")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept = options.out.with_suffix(".jsonl")
    if options.anew:
        kept.unlink(missing_ok=True)
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.is_file() else []
    with threadpool_limits(1):
        for name, measure in measurements(10 if options.quick else 1, options.seed).items():
            if name in {row["name"] for row in rows}:
                continue
            rows.append({"name": name, **measure()})
            print(rows[-1], file=sys.stderr, flush=True)
            with kept.open("a") as lines:
                lines.write(json.dumps(rows[-1]) + "\n")
    text = page(rows, options.seed)
    options.out.with_suffix(".md").write_text(text)
    print(text)
    return int(not options.quick and not all(row["value"] < row["limit"] for row in rows))


def measurements(smaller: int, seed: int) -> Mapping[str, Callable[[], Row]]:
    """Name -> what measures it."""
    trials, groups = 2000 // smaller, 500 // smaller
    return {
        f"a proposal at {groups} groups": partial(proposal, groups, told=200 // smaller, seed=seed),
        f"resumption after {trials} trials at 16 groups": partial(resumption, 16, trials, seed),
        f"resumption after {trials} trials at 50 groups": partial(resumption, 50, trials, seed),
        f"report.html of {5000 // smaller} trials": partial(report, 5000 // smaller, seed),
    }


def proposal(groups: int, *, told: int, seed: int, repeats: int = 40) -> Row:
    """Seconds of one proposal in the mean, each with one more trial told: the model is not fitted for each."""
    domain = BudgetedSpace(chain_space((32,) * groups), {"flops": "50%"})
    with tempfile.TemporaryDirectory() as folder:
        session = _session(domain, Path(folder), told + repeats, seed)
        _drive(session, told)
        found = [_seconds(partial(_drive, session, 1)) for _ in range(repeats)]
    return {"value": statistics.mean(found), "spread": [min(found), max(found)], "limit": PROPOSAL, "unit": "s"}


def resumption(groups: int, trials: int, seed: int) -> Row:
    """Seconds until a stopped search can go on; both ways it is the search that it was, and makes the same proposal."""
    domain = BudgetedSpace(chain_space((32,) * groups), {"flops": "50%"})
    done = trials - EVERY // 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        session = _session(domain, folder, trials + 1, seed)
        first = _seconds(partial(_drive, session, done))
        again: list[SearchSession] = []
        found = [_seconds(lambda: again.append(_session(domain, folder, trials + 1, seed))) for _ in range(3)]
        (folder / SNAPSHOT).unlink()
        replayed = _seconds(lambda: again.append(_session(domain, folder, trials + 1, seed)))
        told = [[one.widths for one in known.trials] for known in (session, *again)]
        if any(widths != told[0] for widths in told):
            raise SystemExit("the resumed search is another one")
        if session.ask() != again[-1].ask():
            raise SystemExit("the replay goes on with another proposal")
    row = {"value": statistics.median(found), "spread": [min(found), max(found)], "limit": RESUMPTION, "unit": "s"}
    return row | {"note": f"{replayed:.1f} s by replaying everything; {first:.1f} s the first time"}


def report(trials: int, seed: int) -> Row:
    """Bytes of the report of a whole run."""
    torch.manual_seed(seed)
    layers = [layer for _ in range(6) for layer in (nn.Linear(48, 48), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(48, 4))
    with tempfile.TemporaryDirectory() as folder:
        result = autoprune.search(
            model,
            torch.zeros(1, 48),
            constraints={"flops": "50%"},
            score_func=size,
            trials=trials,
            controller="random",
            seed=seed,
            verdict={"seeds": 0},
            progress="silent",
            run_dir=Path(folder) / "run",
            threads=1,
        )
        spent = _seconds(lambda: write_reports(result.record))
        value = (Path(folder) / "run" / "report.html").stat().st_size
    return {"value": value, "limit": REPORT, "unit": "bytes", "note": f"written in {spent:.1f} s"}


def size(network: nn.Module) -> float:
    """A score that nothing needs to be run for."""
    return float(sum(parameter.detach().abs().sum() for parameter in network.parameters()))


def page(rows: list[Row], seed: int) -> str:
    """The table."""
    lines = [
        "# Long searches",
        "",
        f"`python benchmarks/long_searches.py`, seed {seed}, {datetime.date.today()}, Python "
        f"{platform.python_version()}, numpy {np.__version__}, {platform.machine()}, one thread; seconds are of the "
        f"processor.",
        "",
        "| what | measured | from … to | claimed below | holds | |",
        "| --- | ---: | ---: | ---: | --- | --- |",
    ]
    for row in rows:
        spread = " … ".join(map(_shown, row.get("spread", ()))) or "–"
        value, limit = f"{_shown(row['value'])} {row['unit']}", f"{_shown(row['limit'])} {row['unit']}"
        holds = "yes" if row["value"] < row["limit"] else "**no**"
        lines.append(f"| {row['name']} | {value} | {spread} | {limit} | {holds} | {row.get('note', '')} |")
    return "\n".join(lines) + "\n"


def _session(domain: BudgetedSpace, folder: Path, trials: int, seed: int) -> SearchSession:
    controller = make_controller(DEFAULT, domain, seed=seed, settings={}, trials=trials)
    ledger = Ledger(open_storage(None, folder / "journal.log"), "search", domain.space)
    return SearchSession(
        domain,
        controller,
        ledger,
        plan=(("uniform_all", domain.uniform()),),
        trials=trials,
        seed=seed,
        snapshots=Snapshots(folder / SNAPSHOT),
    )


def _drive(session: SearchSession, trials: int) -> None:
    for _ in range(trials):
        assignment = session.ask()
        if assignment is None:
            raise SystemExit("the search ended early")
        session.tell(assignment, Outcome.of(_score(assignment.widths, assignment.seed)))


def _score(widths: Widths, seed: int) -> float:
    """More is better, less of it for every further channel, with noise."""
    return sum(width**0.5 for width in widths) / len(widths) + seed % 1000 / 1e5


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
