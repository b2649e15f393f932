"""An engineer's job: a classifier of one's own has to get by with half of the multiply-adds and less memory.

    python examples/budgeted_job.py [--trials 30] [--epochs 12] [--run runs/budgeted_job]

Own network, own data set and loaders, own training before; then a search under two budgets, more trials where they look
promising, and the network as plain code that runs where autoprune is not installed. Under two minutes on two cores.
The same from a job file: docs/tutorials/engineer.md.
"""

# ruff: noqa: T201 - it shows what it finds
from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import autoprune


class Digits(Dataset[tuple[Tensor, int]]):
    """A part of scikit-learn's digits, moved by a pixel at random where it is for training."""

    def __init__(self, start: int, stop: int, *, moved: bool = False) -> None:
        found = load_digits()
        self.images = torch.tensor(found.images[start:stop], dtype=torch.float32)[:, None] / 16
        self.labels, self.moved = found.target[start:stop], moved

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = self.images[i]
        if self.moved:
            image = image.roll(torch.randint(-1, 2, (2,)).tolist(), (1, 2))
        return image, int(self.labels[i])


class Block(nn.Module):
    """Two convolutions, and what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = convolution(width, width), convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, H, W) to the same."""
        out: Tensor = x + self.second(self.first(x))
        return out


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A convolution of 3 x 3, its norm and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def classifier(width: int = 24) -> nn.Module:
    """The network that works today, and is too slow."""
    return nn.Sequential(
        convolution(1, width),
        Block(width),
        convolution(width, 2 * width, 2),
        Block(2 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, 10),
    )


def fit(model: nn.Module, loader: DataLoader[tuple[Tensor, int]], epochs: int) -> None:
    """The training that was there before."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    model.train()
    for _ in range(epochs):
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def main() -> None:
    """Train, search, go on, export, and run what was exported in a process that cannot import autoprune."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each network that is compared")
    parser.add_argument("--run", type=Path, default=Path("runs/budgeted_job"), help="a new folder")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = {
        "train": DataLoader(Digits(0, 1200, moved=True), 64, shuffle=True),
        "validation": DataLoader(Digits(1200, 1500), 100),
        "test": DataLoader(Digits(1500, 1797), 100),
    }
    model = classifier()
    fit(model, data["train"], options.epochs)

    def search(trials: int, *, resume: bool = False) -> autoprune.SearchResult:
        return autoprune.search(
            model,
            torch.rand(1, 1, 8, 8),
            constraints={"flops": "50%", "peak_memory_mb": "90%"},
            data=data,
            trials=trials,
            threads=1,
            training={"epochs": options.epochs, "batch_size": 64},
            verdict={"seeds": options.seeds, "fine_tune_epochs": -(-options.epochs // 3), "protocols": ["fine_tune"]},
            run_dir=options.run,
            resume=resume,
        )

    print(search(options.trials).verdict.sentence)  # type: ignore[union-attr]
    result = search(2 * options.trials, resume=True)  # the same run; what it has is kept
    assert result.verdict is not None
    print(f"after {len(result.trials)} trials: {result.verdict.sentence}")
    costs = result.space.cost(result.widths)
    print({name: f"{cost / result.space.cost(result.space.full)[name]:.0%}" for name, cost in costs.items()})

    place = result.save(options.run / "deploy", ["safetensors", "module"])
    image = data["test"].dataset[0][0][None]
    torch.save(image, place / "image.pt")
    alone = (
        "import sys; sys.modules['autoprune'] = None; sys.path.insert(0, 'module'); import model, torch; "
        "print(model.build()(torch.load('image.pt')).argmax().item())"
    )
    found = subprocess.run([sys.executable, "-c", alone], cwd=place, capture_output=True, text=True, check=True)
    print(f"without autoprune it reads {found.stdout.strip()}, here {result.model(image).argmax().item()}: {place}")
    print(f"report: {result.report()}")


if __name__ == "__main__":
    main()
