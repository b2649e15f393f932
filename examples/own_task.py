"""A task of one's own: dictionaries as batches, several labels at once, a loss and a score that nobody else has.

    python examples/own_task.py [--trials 30] [--epochs 20] [--run runs/own_task]

Each digit has three labels (even, above four, drawn with a closed loop) of different weight. The search is told two
functions: one that trains a network in place, and one that scores it. Under two minutes on two cores.
docs/howto/task.md explains it.
"""

# ruff: noqa: T201 - it shows what it finds
from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import autoprune

NAMES = ("even", "above four", "closed loop")
WEIGHTS = torch.tensor([1.0, 1.0, 2.0])
"""What a mistake costs, by label."""


class Labelled(Dataset[dict[str, Tensor]]):
    """A part of scikit-learn's digits, as dictionaries."""

    def __init__(self, start: int, stop: int) -> None:
        found = load_digits()
        digit = torch.tensor(found.target[start:stop])
        loop = torch.isin(digit, torch.tensor([0, 6, 8, 9]))
        self.labels = torch.stack([digit % 2 == 0, digit > 4, loop], dim=1).float()
        self.images = torch.tensor(found.images[start:stop], dtype=torch.float32)[:, None] / 16

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"image": self.images[i], "labels": self.labels[i]}


class Tagger(nn.Module):
    """(N, 1, 8, 8) images to (N, 3) logits."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Linear(2 * width, len(NAMES))

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the labels."""
        out: Tensor = self.head(self.features(image).mean(dim=(2, 3)))
        return out


TRAIN, VALIDATION, TEST = Labelled(0, 1200), Labelled(1200, 1500), Labelled(1500, 1797)


def fit(model: nn.Module, epochs: int, seed: int) -> None:
    """Train in place. Global random numbers are seeded by whoever calls; `seed` is for generators of one's own."""
    loader = DataLoader(TRAIN, 64, shuffle=True, generator=torch.Generator().manual_seed(seed))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=epochs * len(loader))
    model.train()
    for _ in range(epochs):
        for batch in loader:
            losses = nn.functional.binary_cross_entropy_with_logits(
                model(batch["image"]), batch["labels"], reduction="none"
            )
            optimizer.zero_grad()
            (losses * WEIGHTS).mean().backward()
            optimizer.step()
            schedule.step()
    model.eval()


def precisions(model: nn.Module, part: Labelled) -> list[float]:
    """Average precision of each label, in percent."""
    with torch.inference_mode():
        found = model(part.images).sigmoid()
    return [100 * float(average_precision_score(part.labels[:, i], found[:, i])) for i in range(len(NAMES))]


def score(model: nn.Module, part: Labelled = VALIDATION) -> float:
    """The mean over the labels by their weights; higher is better."""
    return float((torch.tensor(precisions(model, part)) * WEIGHTS).sum() / WEIGHTS.sum())


def main() -> None:
    """Train, search, and show each label of the winner, the uniform network and the full one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each network that is compared")
    parser.add_argument("--run", type=Path, help="where everything is written; by default a free folder below runs/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Tagger()
    fit(model, options.epochs, seed=0)
    result = autoprune.search(
        model,
        TRAIN.images[:1],
        constraints={"flops": "30%"},
        score_func=score,
        test_func=lambda network: score(network, TEST),
        train_func=fit,
        data=[
            batch["image"] for batch in DataLoader(TRAIN, 64)
        ],  # inputs: what stays of the weights is refitted on them
        trials=options.trials,
        threads=1,
        training={"epochs": options.epochs},
        verdict={"seeds": options.seeds, "fine_tune_epochs": -(-options.epochs // 3), "protocols": ["fine_tune"]},
        run_dir=options.run,
    )
    assert result.verdict is not None
    print(result.verdict.sentence)
    networks = {"full": model, "winner": result.model, "uniform_all": result.network("uniform_all")}
    for name, network in networks.items():
        shown = ", ".join(
            f"{label} {value:.1f} %" for label, value in zip(NAMES, precisions(network, TEST), strict=True)
        )
        print(f"{name}: {shown}")
    print(f"report: {result.report()}")


if __name__ == "__main__":
    main()
