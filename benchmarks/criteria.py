"""What do criteria know? Agreement of each with the oracle, and whether the choice still matters after reconstruction.

    python benchmarks/criteria.py [--networks resnet20 mobilenetv2] [--criteria NAME ...] [--without NAME ...]
                                  [--budget 50] [--bases runs/bases] [--keep runs/criteria.jsonl]
                                  [--write docs/results/criteria.md]

Every criterion scores the channels of a trained network on 256 labelled images of the training set. Its scores are
compared, by Spearman's correlation within and across layers, with `ablation` on the same images: the measured change
of the loss without each channel. Then the network is cut by them to half of its FLOPs at uniform widths and scored on
test images with batch norms recalibrated, and after reconstruction by `least_squares` and `sequential_least_squares`.
No training. Random orders, five of them, say what luck alone does.

Every row is kept as soon as it is measured: a run that was ended goes on where it was. ResNet-20 takes about 20 minutes
on one core; MobileNetV2 has ten times as many channels, so leave out what runs the network for each of them
(`--without ablation sensitivity greedy_forward`), or be patient.

Ends with an error where no Taylor criterion reaches the correlation that its paper reports (0.93), or the choice of the
criterion moves the score after reconstruction as much as before.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from reconstruction.bases import BASES, Trained, accuracy_on, trained
from reconstruction.criteria_page import NETWORKS, failures, page
from reconstruction.rankings import CHAINS, ORACLE, REPEAT, SCORES, KeptRows, Rankings, Row

from autoprune.importance import CRITERIA

LAST = (ORACLE, "hap", "obd", REPEAT, "sensitivity", "greedy_forward")
"""The slow ones, so that a run that is ended has all others."""


def main() -> int:
    """Measure what is missing, print the tables; return 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS], choices=list(BASES))
    parser.add_argument("--criteria", nargs="+", default=[*CRITERIA.names(), REPEAT])
    parser.add_argument("--without", nargs="+", default=[], help="criteria that are left out")
    parser.add_argument("--budget", type=int, default=50, help="percent of the FLOPs")
    parser.add_argument("--orders", type=int, default=5, help="random orders")
    parser.add_argument("--test-images", type=int, default=2_500)
    parser.add_argument("--data", type=Path, help="folder of the data sets; None: AUTOPRUNE_DATA")
    parser.add_argument("--bases", type=Path, default=Path("runs/bases"))
    parser.add_argument("--keep", type=Path, default=Path("runs/criteria.jsonl"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", type=Path, help="a markdown file for the results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kept = KeptRows(options.keep)
    for name in options.networks:
        made = trained(name, options.bases, seed=options.seed, data=options.data)
        splits = BASES[name].load(path=options.data, train_limit=BASES[name].images, test_limit=options.test_images)
        measured(replace(made, score=accuracy_on(splits)), options, kept)
    size = options.budget, options.test_images
    rows = [row for row in kept.rows if row.what == SCORES or (row.budget, row.test_images) == size]
    text = page(rows, budget=options.budget, test_images=options.test_images)
    print(text)
    if options.write is not None:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text)
    found = failures(rows)
    print("\n".join(found), file=sys.stderr)
    return 1 if found else 0


def measured(made: Trained, options: argparse.Namespace, kept: KeptRows) -> None:
    """Measure all rows of one network that are not kept yet: the cheap criteria first."""
    rankings = Rankings(made, options.budget)
    chosen = [name for name in options.criteria if name not in {*options.without}]
    for name in sorted(chosen, key=lambda name: LAST.index(name) + 1 if name in LAST else 0):
        for seed in range(options.seed, options.seed + (options.orders if name == "random" else 1)):
            scored = kept.once(Row(made.name, name, seed, SCORES), rankings.scored)
            for chain in CHAINS if name != REPEAT else ():
                cell = Row(made.name, name, seed, chain, options.budget, options.test_images)
                kept.once(cell, lambda row, of=scored: rankings.cut(row, of))


if __name__ == "__main__":
    sys.exit(main())
