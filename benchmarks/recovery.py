"""What brings a cut network back: fine-tuning plain, distilled, refitted first, both, and cut in steps with both.

    python benchmarks/recovery.py [--networks resnet20 mobilenetv2] [--budgets 50 25] [--seeds 5] [--epochs 4]
                                  [--images 3000] [--bases runs/bases] [--jobs 2] [--limit N]
                                  [--trials 40] [--widths uniform searched]
                                  [--keep docs/results/recovery.jsonl] [--write docs/results/recovery.md]

ResNet-20 on CIFAR-10 and MobileNetV2 (half width) on Fashion-MNIST, trained once and kept, are cut to 50 and 25 % of
their FLOPs at uniform widths and at searched ones (40 proposals scored by inherited weights), then trained for equally
many epochs by each arm with the same seeds, and scored on 5,000 test images. Arms differ in nothing else:

- plain: sliced weights, cross entropy; distilled: sliced, `distillation`;
- refitted: `sequential_least_squares` first, cross entropy; both: refitted and distilled;
- gradual: protocol `gradual`, refitted at each step, distilled.

All train channels last, and in bfloat16 where a step is then faster. Each row is kept as soon as it is there, one seed
of everything after the other: a run that was ended goes on where it was. An hour or two on two cores.
Ends with an error where the best arm is not ahead of plain fine-tuning on average.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reconstruction.bases import BASES, TEST_IMAGES, WEIGHTS, trained
from reconstruction.kept import Row, add_row, interval, read_rows

import autoprune
from autoprune.config.parts import NamedPart
from autoprune.config.training import Recipe
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.files import write_whole
from autoprune.importance.members import rank_channels
from autoprune.space.origin import in_form
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.tasks.classification import ClassificationTask
from autoprune.verdict.finals import PlannedFinal, train_final

REFIT, SLICE = ("sequential_least_squares", "bn_recalibration"), ("bn_recalibration",)
ARMS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "plain": ("fine_tune", "cross_entropy", SLICE),
    "distilled": ("fine_tune", "distillation", SLICE),
    "refitted": ("fine_tune", "cross_entropy", REFIT),
    "both": ("fine_tune", "distillation", REFIT),
    "gradual": ("gradual", "distillation", REFIT),
}
"""Arm -> protocol, objective, inheritance."""

WIDTHS = ("uniform", "searched")
TRIALS = 40
KEYS = ("network", "budget", "widths", "arm", "seed")


def main() -> int:
    """Train what is missing, print the table; 1 where the claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "mobilenetv2"], choices=[*BASES])
    parser.add_argument("--budgets", nargs="+", type=int, default=[50, 25], help="percent of the FLOPs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=3000, help="to train on")
    parser.add_argument("--trials", type=int, default=TRIALS, help="proposals of the search for widths")
    parser.add_argument("--widths", nargs="+", default=[*WIDTHS], choices=WIDTHS)
    parser.add_argument("--data", type=Path, help="folder of the data sets; None: AUTOPRUNE_DATA")
    parser.add_argument("--bases", type=Path, default=Path("runs/bases"))
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--limit", type=int, help="train so many rows at most, and judge nothing")
    parser.add_argument("--keep", type=Path, default=Path("docs/results/recovery.jsonl"))
    parser.add_argument("--write", type=Path, help="a markdown file for the results")
    options = parser.parse_args()
    rows = read_rows(options.keep)
    known = {_key(row) for row in rows if row["epochs"] == options.epochs and row["images"] == options.images}
    cells = product(range(options.seeds), options.networks, options.budgets, options.widths, ARMS)
    asked = ((network, budget, widths, arm, seed) for seed, network, budget, widths, arm in cells)
    missing = [(cell, options) for cell in asked if cell not in known][: options.limit]
    for network in {cell[0] for cell, _ in missing}:
        trained(network, options.bases, seed=0, data=options.data)  # once, before there are processes
    for network, budget in sorted({(cell[0], cell[1]) for cell, _ in missing if cell[2] == "searched"}):
        searched(network, budget, options)
    for row in _work(missing, options.jobs):
        rows.append(row)
        print(" ".join(f"{key} {row[key]}" for key in (*KEYS, "score", "seconds")), flush=True)
        add_row(options.keep, row)
    rows = [row for row in rows if (row["epochs"], row["images"]) == (options.epochs, options.images)]
    text, best = page(rows)
    print(text)
    if options.write is not None:
        options.write.write_text(text)
    if options.limit is not None or best != "plain":
        return 0
    print("no arm is ahead of plain fine-tuning on average", file=sys.stderr)
    return 1


def _work(missing: Sequence[tuple[Any, argparse.Namespace]], jobs: int) -> Iterator[Row]:
    if jobs <= 1:
        yield from map(_row, missing)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(_row, missing)


def _row(work: tuple[tuple[str, int, str, str, int], argparse.Namespace]) -> Row:
    (network, budget, widths, arm, seed), options = work
    torch.set_num_threads(1)
    protocol, objective, inherit = ARMS[arm]
    factory = _cut(network, options.images, options.data, options.bases)
    budgeted = BudgetedSpace(factory.space, {"flops": f"{budget}%"})
    chosen = budgeted.uniform() if widths == "uniform" else searched(network, budget, options)
    recipe = Recipe(
        epochs=options.epochs,
        lr=0.1,
        batch_size=128,
        weight_decay=5e-4,
        objective=objective,
        amp="auto",
        channels_last=True,
    )
    task = ClassificationTask(factory.task._data, recipe, device=torch.device("cpu"))  # type: ignore[attr-defined]
    factory = CandidateFactory(
        factory.model, factory.space, factory.ranking, task, options.epochs, inherit=inherit, final_inherit=inherit
    )
    piece = PlannedFinal(chosen, NamedPart(name=protocol), seed, options.epochs, 0.1, False)
    done = train_final(factory, piece)
    about = {"epochs": options.epochs, "images": options.images, "base": _base(network, options.data, options.bases)}
    score = {"score": round(done.score, 3), "seconds": round(done.seconds, 1)}
    return dict(zip(KEYS, (network, budget, widths, arm, seed), strict=True)) | about | score


@cache
def _base(network: str, data: Path | None, bases: Path) -> float:
    """Score of the base network on the same test images."""
    return round(trained(network, bases, seed=0, data=data).base, 3)


@cache
def _cut(network: str, images: int, data: Path | None, bases: Path) -> CandidateFactory:
    """Whatever all rows of a network share."""
    base, made = BASES[network], trained(network, bases, seed=0, data=data)
    splits = base.load(path=data, train_limit=images, test_limit=TEST_IMAGES)
    task = ClassificationTask(splits, Recipe(batch_size=128), device=torch.device("cpu"))
    verified = verify(made.model, trace(made.model, made.example))
    ranking = rank_channels(made.model, verified.space, "l2")
    return CandidateFactory(in_form(verified)(made.model), verified.space, ranking, task, 1)


def searched(network: str, budget: int, options: argparse.Namespace) -> tuple[int, ...]:
    """Widths of the best of some proposals, searched once and kept; those of the results lie beside the weights."""
    kept = options.bases / f"{network}-{budget}-{options.trials}-widths.json"
    kept = kept if kept.exists() or not (WEIGHTS / kept.name).exists() else WEIGHTS / kept.name
    if not kept.exists():
        base, made = BASES[network], trained(network, options.bases, seed=0, data=options.data)
        place = options.bases / f"{network}-{budget}-{options.trials}-search"
        result = autoprune.search(
            made.model,
            made.example,
            constraints={"flops": f"{budget}%"},
            data=base.load(path=options.data, train_limit=options.images, test_limit=TEST_IMAGES),
            trials=options.trials,
            threads=1,
            evaluator={"name": "inherited", "settings": {"validation_limit": 2000}},
            verdict={"seeds": 0, "latency": False},
            run_dir=place,
            resume=(place / "run.json").exists(),
            progress="plain",
        )
        write_whole(kept, json.dumps([int(width) for width in result.widths]).encode())
    return tuple(json.loads(kept.read_text()))


def page(rows: Sequence[Row]) -> tuple[str, str]:
    """The results as markdown, and the arm that is best on average."""
    lines = [
        "# Recovery",
        "",
        "Test accuracy in percent after training, mean and 95 % interval over seeds; below, what an arm gains over "
        "plain fine-tuning of the same network and seed. Made by `benchmarks/recovery.py`.",
        "",
        f"| network | FLOPs | widths | base | {' | '.join(ARMS)} |",
        f"|---|---|---|---|{'---|' * len(ARMS)}",
    ]
    gains: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for network, budget, widths in sorted({(r["network"], r["budget"], r["widths"]) for r in rows}):
        own = [r for r in rows if (r["network"], r["budget"], r["widths"]) == (network, budget, widths)]
        scores = {arm: {r["seed"]: r["score"] for r in own if r["arm"] == arm} for arm in ARMS}
        cells = [interval([*scores[arm].values()]) for arm in ARMS]
        lines.append(f"| {network} | {budget} % | {widths} | {own[0]['base']:.1f} | {' | '.join(cells)} |")
        for arm in ARMS:
            paired = scores[arm].keys() & scores["plain"].keys()
            gains[arm] += [scores[arm][seed] - scores["plain"][seed] for seed in sorted(paired)]
    told = [f"{interval(gains[arm])}" for arm in ARMS]
    lines.append(f"| gain over plain | | | | {' | '.join(told)} |")
    best = max(ARMS, key=lambda arm: float(np.mean(gains[arm])) if gains[arm] else -np.inf)
    lines += ["", f"Best on average: {best}, by {interval(gains[best])} points over plain fine-tuning.", ""]
    return "\n".join([*lines, *_searched_beside_uniform(rows)]), best


def _searched_beside_uniform(rows: Sequence[Row]) -> list[str]:
    """A table of what searched widths are ahead, for each network, budget and arm; nothing where no seed has both."""
    scores = {_key(row): row["score"] for row in rows}
    lines = [
        "Searched widths above uniform ones of the same arm and seed. Each line is of one search, so that the interval "
        "tells the luck of the final training alone.",
        "",
        f"| network | FLOPs | {' | '.join(ARMS)} |",
        f"|---|---|{'---|' * len(ARMS)}",
    ]
    for network, budget in sorted({(row["network"], row["budget"]) for row in rows}):
        leads = {
            arm: [
                score - scores[network, budget, "uniform", arm, seed]
                for (*cell, seed), score in scores.items()
                if cell == [network, budget, "searched", arm] and (network, budget, "uniform", arm, seed) in scores
            ]
            for arm in ARMS
        }
        if any(leads.values()):
            lines.append(f"| {network} | {budget} % | {' | '.join(interval(leads[arm], sign='+') for arm in ARMS)} |")
    return [*lines, ""] if len(lines) > 4 else []


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in KEYS)


if __name__ == "__main__":
    sys.exit(main())
