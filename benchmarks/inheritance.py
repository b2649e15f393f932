"""How good is a network right after the cut? Every inheritance method at uniform widths, beside Torch-Pruning.

    python benchmarks/inheritance.py [--networks resnet20 mobilenetv2 vit demosaic] [--budgets 75 50 25]
                                     [--criteria l2 fpgm taylor_weight] [--bases runs/bases]
                                     [--keep runs/inheritance.jsonl] [--write docs/results/inheritance.md]

Trains three small networks on CIFAR-10 and Fashion-MNIST (once; they are kept) and reads a pretrained one for
demosaicing, if the package `demosaicnet` is there. Each is cut to 75, 50 and 25 % of its FLOPs at uniform widths; what
stays is changed by each method in turn, on 512 unlabelled images, and scored on test images. No training. Beside it
Torch-Pruning at the FLOPs that its ratios reach, with each of its criteria, as it is and with batch norms recalibrated.

Every cell is kept as soon as it is measured: a run that was ended goes on where it was. An hour on two cores.
Ends with an error where `sequential_least_squares` closes less than 75 % of the way from recalibrated to base on
ResNet-20 at 25 % of the FLOPs, `least_squares` less than 55 %, or Torch-Pruning is better anywhere.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from reconstruction.bases import BASES, Trained, demosaicing, trained
from reconstruction.cells import CHAINS, Kept, Measured, measure, measure_peer
from reconstruction.page import failures, page


def main() -> int:
    """Measure what is missing, print the tables; return 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=[*BASES, "demosaic"])
    parser.add_argument("--budgets", nargs="+", type=int, default=[75, 50, 25], help="percent of the FLOPs")
    parser.add_argument("--criteria", nargs="+", default=["l2", "fpgm", "taylor_weight"])
    parser.add_argument("--data", type=Path, help="folder of the data sets; None: AUTOPRUNE_DATA")
    parser.add_argument("--bases", type=Path, default=Path("runs/bases"))
    parser.add_argument("--keep", type=Path, default=Path("runs/inheritance.jsonl"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", type=Path, help="a markdown file for the results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    kept = Kept(options.keep)
    for name in options.networks:
        made = (
            demosaicing() if name == "demosaic" else trained(name, options.bases, seed=options.seed, data=options.data)
        )
        if made is None:
            print(f"{name}: its package is not installed, left out", flush=True)
            continue
        measured(made, options, kept)
    text = page(kept.cells)
    print(text)
    if options.write is not None:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text)
    found = failures(kept.cells)
    print("\n".join(found), file=sys.stderr)
    return 1 if found else 0


def measured(made: Trained, options: argparse.Namespace, kept: Kept) -> None:
    """Measure all cells of one network that are not kept yet."""
    for budget in options.budgets:
        for criterion in options.criteria:
            if criterion == "taylor_weight" and not made.labelled:
                continue
            for chain in CHAINS:
                kept.once(Measured(made.name, budget, criterion, chain), lambda cell: measure(made, cell))
        kept.once(
            Measured(made.name, budget, "Torch-Pruning", "peer"),
            lambda cell: measure_peer(made, cell, seed=options.seed),
        )


if __name__ == "__main__":
    sys.exit(main())
