"""A class for every pixel: a U-Net that finds squares and discs in noise has to get by with 40 % of its multiply-adds.

    python examples/segmentation.py [--trials 20] [--epochs 12] [--run runs/segmentation]

The network, its data as pairs of an image and a mask, and the words `task="segmentation"` are all there is to give:
loss (pixel cross entropy with some Dice), score (mean intersection over union), calibration and the example input
follow. Pixels at the border of a shape do not count, as in PASCAL VOC. Under a minute on two cores.
docs/howto/segmentation.md explains it.
"""

# ruff: noqa: T201 - it shows what it finds
from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import autoprune

SIDE, BORDER = 32, 255


class UNet(nn.Module):
    """(N, 1, H, W) images to logits (N, 3, H, W): nothing, square, disc; H and W are multiples of 4."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.down = nn.ModuleList([block(1, width), block(width, 2 * width)])
        self.bottom = block(2 * width, 4 * width)
        self.lift = nn.ModuleList(
            [nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2), nn.ConvTranspose2d(2 * width, width, 2, stride=2)]
        )
        self.up = nn.ModuleList([block(4 * width, 2 * width), block(2 * width, width)])
        self.head = nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One logit for each class and pixel."""
        skips: list[Tensor] = []
        for step in self.down:
            x = step(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottom(x)
        for lift, step in zip(self.lift, self.up, strict=True):
            x = step(torch.cat([skips.pop(), lift(x)], dim=1))
        out: Tensor = self.head(x)
        return out


def block(inputs: int, outputs: int) -> nn.Sequential:
    """A convolution of 3 x 3, its norm and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def scenes(count: int, seed: int) -> TensorDataset:
    """Images (1, 32, 32) of up to three shapes, discs a little brighter than squares, and masks (32, 32)."""
    made = torch.Generator().manual_seed(seed)
    images = 0.8 * torch.rand(count, 1, SIDE, SIDE, generator=made)
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    for image, mask in zip(images, masks, strict=True):
        for _ in range(int(torch.randint(1, 4, (), generator=made))):
            radius = int(torch.randint(4, 8, (), generator=made))
            y, x = torch.randint(8, 24, (2,), generator=made).tolist()
            kind = int(torch.randint(1, 3, (), generator=made))
            across, down = (columns - x).abs(), (rows - y).abs()
            distance = torch.maximum(across, down) if kind == 1 else torch.hypot(across.float(), down.float())
            image[0][distance <= radius] += 0.2 + 0.2 * kind
            mask[distance <= radius] = kind
            mask[(distance > radius) & (distance <= radius + 1)] = BORDER
    return TensorDataset(images, masks)


def main() -> None:
    """Train, search, and show the winner beside the uniform network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each network that is compared")
    parser.add_argument("--run", type=Path, help="where everything is written; by default a free folder below runs/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    result = autoprune.search(
        UNet(),
        torch.rand(1, 1, SIDE, SIDE),
        constraints={"flops": "40%"},
        data={"train": scenes(160, 0), "validation": scenes(96, 1), "test": scenes(96, 2)},
        task={"name": "segmentation", "settings": {"ignore_index": BORDER}},
        trained=False,
        training={
            "epochs": options.epochs,
            "lr": 1e-2,
            "batch_size": 16,
            "optimizer": "adamw",
            "objective": {"name": "pixel_cross_entropy", "settings": {"dice": 0.5}},
        },
        trials=options.trials,
        threads=1,
        verdict={"seeds": options.seeds, "fine_tune_epochs": -(-options.epochs // 3), "protocols": ["fine_tune"]},
        run_dir=options.run,
    )
    assert result.verdict is not None
    print(result.verdict.sentence)
    base = result.record.base
    print(f"the unpruned network: {base['test']:.1f} % mean IoU on {base['test_examples']} images")
    print(f"report: {result.report()}")


if __name__ == "__main__":
    main()
