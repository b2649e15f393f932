"""A researcher's job: compact reference architectures of a network, published as lists of widths.

    python examples/reference_architecture.py [--trials 20] [--epochs 10] [--run runs/reference]

First which criterion and which inheritance matter on this network, right after the cut; then a search under each of two
budgets, with winners and rivals trained from scratch; then the architecture file that others rebuild the network from.
Under two minutes on two cores: enough to see how it goes, not enough to publish. docs/tutorials/researcher.md has more.
"""

# ruff: noqa: T201 - it shows what it finds
from __future__ import annotations

import argparse
from pathlib import Path

import torch

import autoprune
from autoprune.zoo import build_model


def main() -> None:
    """Compare, search, publish, rebuild."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each network that is compared")
    parser.add_argument("--run", type=Path, default=Path("runs/reference"), help="a new folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, example = build_model("resnet20", {"in_channels": 1, "width": 0.5}), torch.rand(1, 1, 16, 16)
    training = {"epochs": options.epochs, "batch_size": 64}

    found = autoprune.compare(
        model,
        example,
        data="digits",
        trained=False,
        training=training,
        budgets=(30,),
        allocations=["uniform_all", "isomorphic"],
        criteria=["l2", "fpgm", "random"],
        inherit=[["bn_recalibration"], ["least_squares", "bn_recalibration"]],
        threads=1,
        run_dir=options.run / "compare",
    )
    print(*found.sentences, sep="\n")

    results = autoprune.sweep(
        model,
        example,
        constraints={"flops": ["60%", "30%"]},
        data="digits",
        trained=False,
        training=training,
        space={"divisor": 2, "min_ratio": 0.25},
        trials=options.trials,
        threads=1,
        verdict={"protocols": ["scratch_e"], "seeds": options.seeds, "latency": False},
        run_dir=options.run / "search",
    )
    for result in results:
        assert result.verdict is not None
        print(result.verdict.sentence)
        print({group.name: width for group, width in zip(result.space.groups, result.widths, strict=True)})

    folder = results[-1].save(options.run / "resnet20_narrow")
    small = autoprune.load(folder, model=model)
    parameters = [sum(tensor.numel() for tensor in one.parameters()) for one in (small, model)]
    print(f"published in {folder}: {parameters[0]:,} of {parameters[1]:,} parameters")
    print(f"overview: {options.run / 'search' / 'overview.html'}")


if __name__ == "__main__":
    main()
