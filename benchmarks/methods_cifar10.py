"""Widths that training finds beside widths that search finds: ResNet-20 on CIFAR-10 at half of the FLOPs.

    python benchmarks/methods_cifar10.py [--seeds 3] [--images 3000] [--sparsity-epochs 3] [--epochs 2] [--trials 14]
                                         [--methods bar csgd …] [--bases runs/bases] [--limit N]
                                         [--keep docs/results/methods_cifar10.jsonl]
                                         [--write docs/results/methods_cifar10.md]

Five sparsity trainings, with the settings of their jobs in configs/methods, and the search `surrogate`, all from the
same trained network, which is made once and kept. For each seed a sparsity training is done anew, and a search with
scores after reconstruction. Whatever the widths, the weights are then refitted (`sequential_least_squares`,
recalibrated batch norms), and all arms have the same final training with the same seeds, scored on 5,000 test images.

The final networks of sparsity trainings go on from the weights that those left; uniform and searched widths have as
many epochs more in the final training, so that all have equal training.

Each row is kept as soon as it is there: a run that was ended goes on where it was. An hour on one core. It claims
nothing: the page says who is ahead.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from methods import JOBS, RESULTS, ROOT
from reconstruction.bases import BASES, TEST_IMAGES, trained
from reconstruction.kept import Row, add_row, half_width, interval, read_rows
from safetensors.torch import load

import autoprune
from autoprune.allocation import UNIFORM
from autoprune.config.job import load_job
from autoprune.config.parts import NamedPart
from autoprune.config.training import Recipe
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.evaluators.candidates import CandidateFactory, OtherStart
from autoprune.files import write_whole
from autoprune.importance.members import rank_channels, ranking_of, unit_scores
from autoprune.space.copying import copy_network
from autoprune.space.groups import Widths
from autoprune.space.origin import in_form
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.sparsity.base import make_sparsity
from autoprune.sparsity.training import SparsityPiece, sparsify
from autoprune.tasks.classification import ClassificationTask
from autoprune.verdict.finals import PlannedFinal, train_final

METHODS = ("network_slimming", "group_lasso", "bar", "csgd", "half_space")
REFIT = ("sequential_least_squares", "bn_recalibration")
ARMS = ("uniform_all", "uniform_inner", "surrogate")
"""Beside the methods."""

RIVALS = ("uniform_all", "surrogate")
"""What each row is compared with."""

NETWORK, BUDGET, LR, LR_SHARE = "resnet20", {"flops": "50%"}, 0.1, 0.1
SEARCHES = ROOT / "runs" / "methods_cifar10"
VALIDATION = 1000
"""Images by which a search scores."""

SETTINGS = ("images", "sparsity_epochs", "epochs", "trials")
"""Rows with others are of another table."""

ABOUT = """# Widths that training finds, on CIFAR-10

ResNet-20 ({base:.1f} % on 5,000 test images) at half of its FLOPs, {images} training images. Sparsity trainings of
{sparsity_epochs} epochs, with the settings of their jobs in [configs/methods](../../configs/methods), and searches
(`surrogate`, {trials} proposals beside those of the allocations, scored after reconstruction on {validation:,}
images) are done anew for each seed. Then the weights are refitted (`sequential_least_squares`, recalibrated batch
norms) and trained with the same seeds. The final networks of sparsity trainings go on from the weights that those
left, {epochs} epochs; uniform and searched widths have the epochs of both in the final training, so that all have
equal training. Not equal: *passes* over the training data where a method looks at them otherwise as well (`bar`
learns from the base network, too), and what a search costs, which trains nothing (*found in*). Test accuracy; mean
and 95 % interval over seeds, differences paired by seed. This is much shorter than what the papers train, and nothing
was tuned on it. Made by `benchmarks/methods_cifar10.py`.

"""


def main() -> None:
    """Train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=[*METHODS], help="names of jobs in configs/methods")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=3000, help="to train on")
    parser.add_argument("--sparsity-epochs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="of the final training")
    parser.add_argument("--trials", type=int, default=14, help="proposals of a search")
    parser.add_argument("--data", type=Path, help="folder of the data sets; None: AUTOPRUNE_DATA")
    parser.add_argument("--bases", type=Path, default=Path("runs/bases"))
    parser.add_argument("--limit", type=int, help="so many rows at most")
    parser.add_argument("--keep", type=Path, default=RESULTS / "methods_cifar10.jsonl")
    parser.add_argument("--write", type=Path, help="a markdown file for the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for row in read_rows(options.keep) if all(row[key] == getattr(options, key) for key in SETTINGS)]
    known = {(row["arm"], row["seed"]) for row in rows}
    asked = [(arm, seed) for seed in range(options.seeds) for arm in (*ARMS, *options.methods)]
    for arm, seed in [cell for cell in asked if cell not in known][: options.limit]:
        rows.append(_row(arm, seed, options))
        print(" ".join(f"{key} {rows[-1][key]}" for key in ("arm", "seed", "score", "found_in", "seconds")), flush=True)
        add_row(options.keep, rows[-1])
    text = page([row for row in rows if (row["arm"], row["seed"]) in set(asked)])
    print(text)
    if options.write is not None:
        options.write.write_text(text)


def _row(arm: str, seed: int, options: argparse.Namespace) -> Row:
    """One network: its widths found, its weights refitted and trained."""
    factory = _factory(options.images, options.data, options.bases)
    domain = BudgetedSpace(factory.space, BUDGET)
    started, start, passes, epochs = time.perf_counter(), "", 0.0, options.epochs + options.sparsity_epochs
    if arm in UNIFORM:
        widths = domain.uniform(inner_only=arm == "uniform_inner")
    elif arm == "surrogate":
        widths = searched(seed, options)
    else:
        start, epochs = f"{arm}-{seed}", options.epochs
        widths, found, passes = sparsified(factory, domain, arm, seed, options)
        factory = replace(factory, starts={start: found})
    found_in = time.perf_counter() - started
    done = train_final(factory, PlannedFinal(widths, NamedPart(name="fine_tune"), seed, epochs, LR, False, start))
    share = domain.costs(np.array([widths, factory.space.full]))["flops"]
    return {
        "arm": arm,
        "seed": seed,
        **{key: getattr(options, key) for key in SETTINGS},
        "widths": [int(width) for width in widths],
        "flops": round(100 * float(share[0] / share[1]), 2),
        "base": _base(options.data, options.bases),
        "passes": passes,
        "final_epochs": epochs,
        "score": round(done.score, 3),
        "found_in": round(found_in, 1),
        "seconds": round(done.seconds, 1),
    }


def sparsified(
    factory: CandidateFactory, domain: BudgetedSpace, name: str, seed: int, options: argparse.Namespace
) -> tuple[Widths, OtherStart, float]:
    """Widths, weights and passes of a sparsity training with the settings of its job."""
    (method,) = load_job(JOBS / f"{name}.yaml").sparsity.methods
    piece = SparsityPiece(method, options.sparsity_epochs, LR_SHARE * LR, seed, domain.uniform())
    found = sparsify(factory, piece)
    widths = make_sparsity(method).widths(domain, unit_scores(factory.space, found.scores))
    network = copy_network(factory.model)
    network.load_state_dict(load(found.weights))
    return widths, OtherStart(network.eval(), ranking_of(factory.space, found.scores)), found.passes


def searched(seed: int, options: argparse.Namespace) -> Widths:
    """Widths of a search by scores after reconstruction; searched once and kept."""
    place = SEARCHES / f"{options.images}-{options.trials}-{seed}"
    kept = place.with_suffix(".json")
    if not kept.exists():
        made = trained(NETWORK, options.bases, seed=0, data=options.data)
        limits = {"train_limit": options.images, "validation_limit": VALIDATION, "test_limit": TEST_IMAGES}
        result = autoprune.search(
            made.model,
            made.example,
            constraints=BUDGET,
            data=BASES[NETWORK].load(path=options.data, **limits),
            trials=options.trials,
            threads=1,
            seed=seed,
            device="cpu",
            inherit=REFIT,
            allocations=("global_threshold", "log_width"),
            verdict={"seeds": 0, "random_candidates": 1, "latency": False},
            run_dir=place,
            resume=(place / "run.json").exists(),
            progress="plain",
        )
        write_whole(kept, json.dumps([int(width) for width in result.widths]).encode())
    return tuple(json.loads(kept.read_text()))


@cache
def _base(data: Path | None, bases: Path) -> float:
    """Score of the base network on the same test images."""
    return round(trained(NETWORK, bases, seed=0, data=data).base, 3)


@cache
def _factory(images: int, data: Path | None, bases: Path) -> CandidateFactory:
    """Whatever all rows share."""
    made = trained(NETWORK, bases, seed=0, data=data)
    splits = BASES[NETWORK].load(path=data, train_limit=images, test_limit=TEST_IMAGES)
    recipe = Recipe(epochs=1, lr=LR, batch_size=64, weight_decay=5e-4)
    task = ClassificationTask(splits, recipe, device=torch.device("cpu"))
    verified = verify(made.model, trace(made.model, made.example))
    ranking = rank_channels(made.model, verified.space, "l2")
    model = in_form(verified)(made.model)
    return CandidateFactory(model, verified.space, ranking, task, 1, inherit=REFIT, final_inherit=REFIT)


def page(rows: Sequence[Row]) -> str:
    """The results as markdown."""
    if not rows:
        return "No rows.\n"
    told = {key: f"{rows[0][key]:,}" for key in SETTINGS}
    scores = {arm: {row["seed"]: row["score"] for row in rows if row["arm"] == arm} for arm in _arms(rows)}
    header = ("arm", "seeds", "FLOPs, %", "passes", "final epochs", "score, %", *(f"beside {arm}" for arm in RIVALS))
    lines = [ABOUT.format(base=rows[0]["base"], validation=VALIDATION, **told)]
    lines += [f"| {' | '.join((*header, 'found in, s', 'trained in, s'))} |", f"|{'---|' * (len(header) + 2)}"]
    for arm, by_seed in scores.items():
        own = [row for row in rows if row["arm"] == arm]
        cells = (
            arm,
            str(len(own)),
            f"{np.mean([row['flops'] for row in own]):.1f}",
            f"{own[0]['passes']:.3g}",
            str(own[0]["final_epochs"]),
            interval([*by_seed.values()]),
            *("–" if arm == rival else interval(_lead(by_seed, scores.get(rival, {})), sign="+") for rival in RIVALS),
            *(f"{np.mean([row[key] for row in own]):.0f}" for key in ("found_in", "seconds")),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_told(scores), ""])


def _arms(rows: Sequence[Row]) -> list[str]:
    """In the order of the table."""
    present = {row["arm"] for row in rows}
    return [*(arm for arm in ARMS if arm in present), *sorted(present - {*ARMS})]


def _lead(own: dict[int, float], rival: dict[int, float]) -> list[float]:
    """Differences by seed, of those that both have."""
    return [own[seed] - rival[seed] for seed in sorted(own.keys() & rival.keys())]


def _told(scores: dict[str, dict[int, float]]) -> list[str]:
    """Who is ahead, and of whom by more than chance."""
    best = max(scores, key=lambda arm: float(np.mean([*scores[arm].values()])))
    sure: list[str] = []
    open_: list[str] = []
    for arm in scores.keys() - {best}:
        lead = _lead(scores[best], scores[arm])
        certain = bool(lead) and float(np.mean(lead)) > half_width(lead)
        (sure if certain else open_).append(f"{arm} ({interval(lead, sign='+')})")
    return [
        f"Ahead: {best}, {interval([*scores[best].values()])} %.",
        *([f"It leads by more than chance over {', '.join(sorted(sure))}."] if sure else []),
        *([f"Its lead may be chance over {', '.join(sorted(open_))}."] if open_ else []),
    ]


if __name__ == "__main__":
    main()
