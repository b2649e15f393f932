"""Does a search whose last rung is a short training find networks that train better, for the same passes?

    python benchmarks/rungs.py [--searches 5] [--seeds 3] [--trials 30] [--epochs 4] [--images 3000]
                               [--bases runs/bases] [--jobs 2] [--keep docs/results/rungs.jsonl]
                               [--write docs/results/rungs.md]

ResNet-20 on CIFAR-10, trained once and kept, is searched at 25 % of its FLOPs in three ways, with the same seeds:

- few: `inherited`, weights after `least_squares` scored on 1,000 images;
- rungs: `chain` of the same and of `short_training`, 40 steps; a third of the candidates go on; as many trials;
- plain: as few, with as many more trials as make up for the passes of the short trainings and of the choice of their
  learning rate; a step of training counts three passes.

Winners and uniform widths then have the same final training (reconstructed, distilled) with the same seeds, scored on
5,000 test images that no search has seen.

What is compared is how far the winner ends above uniform: one value for each search, the mean over the seeds of the
final training, paired by the seed of the search. The rows of each winner are kept as soon as they are there: a run that
was ended goes on where it was. About half an hour on two cores. Ends with an error where rungs are behind plain scores
by more than the interval.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reconstruction.bases import BASES, TEST_IMAGES, trained
from reconstruction.kept import Row, add_row, half_width, interval, read_rows

import autoprune
from autoprune.config.parts import NamedPart
from autoprune.config.training import Recipe
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.files import write_whole
from autoprune.importance.members import rank_channels
from autoprune.space.groups import Widths
from autoprune.space.origin import in_form
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.tasks.classification import ClassificationTask
from autoprune.verdict.finals import PlannedFinal, train_final

NETWORK, BUDGET = "resnet20", {"flops": "25%"}
REFIT = ("sequential_least_squares", "bn_recalibration")
RECIPE = Recipe(epochs=1, lr=0.1, batch_size=128, weight_decay=5e-4)
VALIDATION, STEPS, KEEP = 1000, 40, 1 / 3
CALIBRATION = 10 * RECIPE.batch_size
SCORE = VALIDATION + CALIBRATION
"""Passes of a plain score: the moments of `least_squares` are there, batch norms are recalibrated."""

TRAIN = 3 * STEPS * RECIPE.batch_size + CALIBRATION + SCORE
"""Passes of a short training, of the refit before it and of the score after it."""

RATES, FIRST = 5, 8
"""Learning rates that `short_training` chooses from, once in a run; candidates before the controller's own (uniform
widths and one-shot rules), which go on whatever they score."""

CHAIN: Mapping[str, Any] = {
    "name": "chain",
    "settings": {
        "steps": [
            {"name": "inherited", "settings": {"validation_limit": VALIDATION}},
            {"name": "short_training", "settings": {"steps": STEPS, "validation_limit": VALIDATION}},
        ],
        "keep": [KEEP],
    },
}
INHERITED: Mapping[str, Any] = {"name": "inherited", "settings": {"validation_limit": VALIDATION}}
EVALUATORS = {"plain": INHERITED, "rungs": CHAIN, "few": INHERITED}
UNIFORM = "uniform"
SETTINGS = ("images", "epochs", "trials")
"""Rows with others are of another table."""

ABOUT = """# Rungs

ResNet-20 on CIFAR-10 ({base:.1f} %) at 25 % of its FLOPs; winners of searches with a short training as the last rung
({trials} trials), and with plain scores, for the same passes ({plain_trials} trials) and for the same number of trials
(few). All networks have the same final training ({epochs} epochs on {images:,} images, reconstructed, distilled);
accuracy on 5,000 test images, mean and 95 % interval over searches. Made by `benchmarks/rungs.py`.
"""


def main() -> int:
    """Search and train what is missing, print the table; 1 where the claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=5, help="of each kind")
    parser.add_argument("--seeds", type=int, default=3, help="of the final training")
    parser.add_argument("--trials", type=int, default=30, help="of a search with rungs")
    parser.add_argument("--epochs", type=int, default=4, help="of the final training")
    parser.add_argument("--images", type=int, default=3000, help="to train on")
    parser.add_argument("--data", type=Path, help="folder of the data sets; None: AUTOPRUNE_DATA")
    parser.add_argument("--bases", type=Path, default=Path("runs/bases"))
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--keep", type=Path, default=Path("docs/results/rungs.jsonl"))
    parser.add_argument("--write", type=Path, help="a markdown file for the results")
    options = parser.parse_args()
    rows = [row for row in read_rows(options.keep) if all(row[key] == getattr(options, key) for key in SETTINGS)]
    known = {(row["arm"], row["search"], row["seed"]) for row in rows}
    finals = [(UNIFORM, 0, seed) for seed in range(options.seeds)]
    finals += [(arm, n, seed) for n in range(options.searches) for arm in EVALUATORS for seed in range(options.seeds)]
    missing = [cell for cell in finals if cell not in known]
    work = [(list(own), options) for _, own in groupby(missing, lambda cell: cell[:2])]
    if work:
        trained(NETWORK, options.bases, seed=0, data=options.data)  # once, before there are processes
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for row in chain.from_iterable(pool.imap_unordered(_rows, work)):
            rows.append(row)
            print(" ".join(f"{key} {row[key]}" for key in ("arm", "search", "seed", "score", "seconds")), flush=True)
            add_row(options.keep, row)
    text, behind = page(rows)
    print(text)
    if options.write is not None:
        options.write.write_text(text)
    if not behind:
        return 0
    print("rungs are behind plain scores by more than the interval", file=sys.stderr)
    return 1


def plain_trials(trials: int) -> int:
    """Trials of a plain search that takes as many passes as one of so many with rungs."""
    return round((trials * (SCORE + KEEP * TRAIN) + (RATES + FIRST) * TRAIN) / SCORE)


def _rows(work: tuple[list[tuple[str, int, int]], argparse.Namespace]) -> list[Row]:
    """The final trainings of one winner."""
    torch.set_num_threads(1)
    cells, options = work
    return [_row(*cell, options) for cell in cells]


def _row(arm: str, number: int, seed: int, options: argparse.Namespace) -> Row:
    """One final training."""
    factory = _factory(options.images, options.epochs, options.data, options.bases)
    domain = BudgetedSpace(factory.space, BUDGET)
    found: dict[str, Any] = {"widths": domain.uniform(), "search_seconds": 0.0}
    if arm != UNIFORM:
        found = searched(arm, number, options)
    widths: Widths = tuple(found["widths"])
    done = train_final(factory, PlannedFinal(widths, NamedPart(name="fine_tune"), seed, options.epochs, 0.1, False))
    return {
        "arm": arm,
        "search": number,
        "seed": seed,
        **{key: getattr(options, key) for key in SETTINGS},
        "base": _base(options.data, options.bases),
        "score": round(done.score, 3),
        "seconds": round(done.seconds, 1),
        "search_seconds": found["search_seconds"],
        "widths": [int(width) for width in widths],
    }


def searched(arm: str, number: int, options: argparse.Namespace) -> dict[str, Any]:
    """Widths of the winner of a search, searched once and kept, and its CPU seconds (of the last attempt)."""
    place = options.bases / f"rungs-{options.images}-{options.trials}-{arm}-{number}"
    kept = place.with_suffix(".json")
    if not kept.exists():
        made = trained(NETWORK, options.bases, seed=0, data=options.data)
        limits = {"train_limit": options.images, "validation_limit": VALIDATION, "test_limit": TEST_IMAGES}
        start = time.process_time()
        result = autoprune.search(
            made.model,
            made.example,
            constraints=BUDGET,
            data=BASES[NETWORK].load(path=options.data, **limits),
            trials=plain_trials(options.trials) if arm == "plain" else options.trials,
            threads=1,
            seed=number,
            device="cpu",
            evaluator=EVALUATORS[arm],
            training=RECIPE,
            verdict={"seeds": 0, "random_candidates": 1, "latency": False},
            run_dir=place,
            resume=(place / "run.json").exists(),
            progress="plain",
        )
        widths = [int(width) for width in result.widths]
        told = {"widths": widths, "search_seconds": round(time.process_time() - start, 1)}
        write_whole(kept, json.dumps(told).encode())
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


@cache
def _base(data: Path | None, bases: Path) -> float:
    """Score of the base network on the same test images."""
    return round(trained(NETWORK, bases, seed=0, data=data).base, 3)


@cache
def _factory(images: int, epochs: int, data: Path | None, bases: Path) -> CandidateFactory:
    """Whatever all final trainings share."""
    made = trained(NETWORK, bases, seed=0, data=data)
    splits = BASES[NETWORK].load(path=data, train_limit=images, test_limit=TEST_IMAGES)
    verified = verify(made.model, trace(made.model, made.example))
    changes = {"epochs": epochs, "objective": "distillation", "amp": "auto", "channels_last": True}
    recipe = Recipe.model_validate(RECIPE.model_dump() | changes)
    task = ClassificationTask(splits, recipe, device=torch.device("cpu"))
    ranking = rank_channels(made.model, verified.space, "l2")
    model = in_form(verified)(made.model)
    return CandidateFactory(model, verified.space, ranking, task, epochs, inherit=REFIT, final_inherit=REFIT)


def page(rows: Sequence[Row]) -> tuple[str, bool]:
    """The results as markdown, and whether rungs are behind by more than the interval."""
    if not rows:
        return "No rows.\n", False
    gains = {arm: _gains(rows, arm) for arm in EVALUATORS}
    paired = _paired(gains["rungs"], gains["plain"])
    uniform = [row["score"] for row in rows if row["arm"] == UNIFORM]
    lines = [
        ABOUT.format(plain_trials=plain_trials(rows[0]["trials"]), **rows[0]),
        f"Uniform widths: {interval(uniform)} over {len(uniform)} seeds of the final training.",
        "",
        "| scores | searches | above uniform | found in, CPU s |",
        "|---|---|---|---|",
    ]
    for arm, of_searches in gains.items():
        seconds = {row["search"]: row["search_seconds"] for row in rows if row["arm"] == arm}
        cells = (arm, str(len(of_searches)), interval([*of_searches.values()], sign="+"), _mean([*seconds.values()]))
        lines.append(f"| {' | '.join(cells)} |")
    few = interval(_paired(gains["rungs"], gains["few"]), sign="+")
    lines += ["", f"Rungs above plain, paired by search: {interval(paired, sign='+')}; above few: {few}.", ""]
    return "\n".join(lines), len(paired) > 1 and float(np.mean(paired)) < -half_width(paired)


def _paired(gains: Mapping[int, float], others: Mapping[int, float]) -> list[float]:
    """Differences of the searches that both have."""
    return [gains[number] - others[number] for number in sorted(gains.keys() & others.keys())]


def _gains(rows: Sequence[Row], arm: str) -> dict[int, float]:
    """Search -> how far its winner is above uniform widths, on average over the seeds that both have."""
    uniform = {row["seed"]: row["score"] for row in rows if row["arm"] == UNIFORM}
    leads: dict[int, list[float]] = {}
    for row in rows:
        if row["arm"] == arm and row["seed"] in uniform:
            leads.setdefault(row["search"], []).append(row["score"] - uniform[row["seed"]])
    return {number: float(np.mean(of_seeds)) for number, of_seeds in leads.items()}


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.0f}" if values else "–"


if __name__ == "__main__":
    sys.exit(main())
