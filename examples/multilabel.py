"""Several labels at once: what a digit is, told by three labels, with a third of the multiply-adds.

    python examples/multilabel.py [--trials 30] [--epochs 12] [--run runs/multilabel]

Rows are dictionaries, as Hugging Face's `datasets` and many a loader have them; the column `labels` is the target. The
score is F1 over labels, with the standard error of a jackknife. Under a minute on two cores.
"""

# ruff: noqa: T201 - it shows what it finds
from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset

import autoprune

NAMES = ("even", "above four", "closed loop")


class Tagged(Dataset[dict[str, Tensor]]):
    """A part of scikit-learn's digits: an image, and whether the digit is even, above four, and has a closed loop."""

    def __init__(self, start: int, stop: int) -> None:
        found = load_digits()
        digit = torch.tensor(found.target[start:stop])
        loop = torch.isin(digit, torch.tensor([0, 6, 8, 9]))
        self.labels = torch.stack([digit % 2 == 0, digit > 4, loop], dim=1).long()
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
            *convolution(1, width), *convolution(width, 2 * width, 2), *convolution(2 * width, 2 * width)
        )
        self.head = nn.Linear(2 * width, len(NAMES))

    def forward(self, image: Tensor) -> Tensor:
        """Logits of the labels."""
        out: Tensor = self.head(self.features(image).mean(dim=(2, 3)))
        return out


def convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """A convolution of 3 x 3, its norm and ReLU."""
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def main() -> None:
    """Train, search, and show the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each network that is compared")
    parser.add_argument("--run", type=Path, help="where everything is written; by default a free folder below runs/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    result = autoprune.search(
        Tagger(),
        torch.rand(1, 1, 8, 8),
        constraints={"flops": "33%"},
        data={"train": Tagged(0, 1000), "validation": Tagged(1000, 1400), "test": Tagged(1400, 1797)},
        task="multilabel",
        measure={"name": "multilabel_f1", "settings": {"average": "macro"}},
        trained=False,
        training={"epochs": options.epochs, "lr": 1e-2, "batch_size": 32, "optimizer": "adamw"},
        trials=options.trials,
        threads=1,
        verdict={"seeds": options.seeds, "fine_tune_epochs": -(-options.epochs // 3), "protocols": ["fine_tune"]},
        run_dir=options.run,
    )
    assert result.verdict is not None
    print(result.verdict.sentence)
    images, labels = Tagged(1400, 1797).images, Tagged(1400, 1797).labels
    with torch.inference_mode():
        right = ((result.model(images) > 0) == labels).float().mean(0)
    told = (f"{name} {100 * share:.1f} %" for name, share in zip(NAMES, right.tolist(), strict=True))
    print(f"right: {', '.join(told)}")
    print(f"report: {result.report()}")


if __name__ == "__main__":
    main()
