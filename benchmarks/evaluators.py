"""What does scoring a candidate cost, and does racing find as good a winner for the same cost?

    python benchmarks/evaluators.py [--bases runs/bases] [--images 5000] [--searches 20]
                                    [--write docs/results/evaluators.md]

First part: seconds of scoring a candidate with `inherited` over those of the forward passes of the sliced network over
the same images (of calibration and of validation) in their fastest form, one after the other in one process, by its CPU
time; moments for the reconstruction are there. ResNet-20, MobileNetV2, and ResNet-20 in graph form, at 25 % of the
FLOPs. Beside it FastNAS of Model Optimizer on the same network and images, where `modelopt` is installed.

Second part: searches with `racing` and with `inherited` of as many passes of single examples, in pairs of one seed; the
winners are compared on examples that no search has seen. A network trained on the digits, and a synthetic problem.

Ends with an error where a candidate costs more than 1.15 x its passes, or racing is worse by more than its interval.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from scoring.cost import costs
from scoring.page import failures, page
from scoring.races import races


def main() -> int:
    """Measure, print the tables; return 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the data sets; None: AUTOPRUNE_DATA")
    parser.add_argument("--bases", type=Path, default=Path("runs/bases"))
    parser.add_argument("--images", type=int, default=5000, help="of validation")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("--networks", nargs="*", default=["resnet20", "mobilenetv2", "resnet20 as its graph"])
    parser.add_argument("--write", type=Path, help="a markdown file for the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    measured = [
        costs(name, options.bases, data=options.data, images=options.images, rounds=options.rounds)
        for name in options.networks
    ]
    raced = races(options.searches) if options.searches else []
    text = page(measured, raced)
    print(text)
    if options.write is not None:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(text)
    found = failures(measured, raced)
    print("\n".join(found), file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
