"""Numbers as targets: a perceptron that learnt Friedman's function has to get by with a third of its weights.

    python examples/regression.py [--trials 30] [--epochs 40] [--run runs/regression]

The function is that of Friedman 1991 (Multivariate Adaptive Regression Splines, section 4.3), of ten numbers of which
five count, with noise. The score is the mean squared error, lower is better; 1.0 is the noise. Under a minute on two
cores.
"""

# ruff: noqa: T201 - it shows what it finds
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import make_friedman1
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import autoprune


class Perceptron(nn.Module):
    """(N, 10) to (N, 1)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(10, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU()
        )
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The estimate."""
        out: Tensor = self.head(self.layers(x))
        return out


def examples(count: int, seed: int) -> TensorDataset:
    """Ten numbers from 0 to 1, and the function of them; single numbers, which the task puts in a column."""
    x, y = make_friedman1(count, noise=1.0, random_state=seed)
    return TensorDataset(torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32))


def main() -> None:
    """Train, search, and show the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each network that is compared")
    parser.add_argument("--run", type=Path, help="where everything is written; by default a free folder below runs/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    test = examples(1000, 2)
    result = autoprune.search(
        Perceptron(),
        torch.rand(1, 10),
        constraints={"params": "33%"},
        data={"train": examples(1000, 0), "validation": examples(1000, 1), "test": test},
        task="regression",
        trained=False,
        training={"epochs": options.epochs, "lr": 1e-2, "batch_size": 32, "optimizer": "adamw"},
        trials=options.trials,
        threads=1,
        verdict={"seeds": options.seeds, "fine_tune_epochs": -(-options.epochs // 3), "protocols": ["fine_tune"]},
        run_dir=options.run,
    )
    assert result.verdict is not None
    print(result.verdict.sentence)
    y = test.tensors[1].numpy()
    with torch.inference_mode():
        found = result.model(test.tensors[0])[:, 0].numpy()
    print(f"mean squared error on test examples: {np.mean((found - y) ** 2):.2f}; of the mean: {np.var(y):.2f}")
    print(f"report: {result.report()}")


if __name__ == "__main__":
    main()
