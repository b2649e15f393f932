"""Boxes: a small single-shot detector has to get by with half of its multiply-adds, judged by COCO's average precision.

    python examples/detection.py [--trials 20] [--epochs 12] [--run runs/detection]

A detector that is not torchvision's says itself what it loses and which boxes its maps mean, by two methods; the search
needs nothing else. Squares and discs in noise, up to three in an image. About a minute on two cores; it needs
pycocotools (pip install 'autoprune[detection]'). docs/howto/detection.md explains it.
"""

# ruff: noqa: T201 - it shows what it finds
from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

import autoprune

SIDE, STRIDE, KINDS = 48, 8, 2


class SingleShot(nn.Module):
    """(N, 1, H, W) images to raw maps (N, 6, H / 8, W / 8).

    For each cell the logarithms of the distances from its middle to the four sides of the box, and for squares and
    discs a logit of whether the middle of one is in it: a grid of cells as in YOLO (Redmon et al. 2016, arXiv
    1506.02640), sides as in FCOS (Tian et al. 2019, arXiv 1904.01355).
    """

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        widths = (1, width, 2 * width, 4 * width)
        steps = [layer for a, b in pairwise(widths) for layer in convolution(a, b, 2)]
        self.backbone = nn.Sequential(*steps, *convolution(4 * width, 4 * width, 1))
        self.head = nn.Conv2d(4 * width, 4 + KINDS, 1)

    def forward(self, images: Tensor) -> Tensor:
        """The maps."""
        maps: Tensor = self.head(self.backbone(images))
        return maps

    def loss(self, maps: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Of the logits at all cells, of the sides where there is a middle; means over images."""
        there, sides = torch.zeros_like(maps[:, 4:]), [maps.sum() * 0]
        for image, target in enumerate(targets):
            for box, label in zip(target["boxes"], target["labels"], strict=True):
                x, y = ((box[:2] + box[2:]) / 2 / STRIDE).long().tolist()
                there[image, int(label) - 1, y, x] = 1
                middle = (box.new_tensor([x, y]) + 0.5) * STRIDE
                wanted = torch.cat([middle - box[:2], box[2:] - middle]).clamp(min=1).log()
                sides.append(F.smooth_l1_loss(maps[image, :4, y, x], wanted.to(maps.dtype), reduction="sum"))
        kinds = F.binary_cross_entropy_with_logits(maps[:, 4:], there, reduction="sum") / len(targets)
        return {"kinds": kinds, "sides": torch.stack(sides).sum() / len(targets)}

    def detections(self, maps: Tensor, images: Any) -> list[dict[str, Tensor]]:
        """The ten best peaks of each image, as boxes."""
        scores = maps[:, 4:].sigmoid()
        peaks = torch.where(F.max_pool2d(scores, 3, 1, 1) == scores, scores, 0).flatten(1)
        height, width = maps.shape[2:]
        found = []
        for sides, (score, index) in zip(maps[:, :4], zip(*peaks.topk(10, dim=1), strict=True), strict=True):
            kind, y, x = index // (height * width), index % (height * width) // width, index % width
            middle = (torch.stack([x, y], dim=1) + 0.5) * STRIDE
            apart = sides[:, y, x].T.exp()
            boxes = torch.cat([middle - apart[:, :2], middle + apart[:, 2:]], dim=1)
            found.append({"boxes": boxes, "scores": score, "labels": kind + 1})
        return found


def convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """A convolution of 3 x 3, its norm and ReLU."""
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


class Scenes(Dataset[Any]):
    """Images (1, 48, 48), each with the boxes (left, top, right, bottom) and the labels of one to three shapes."""

    def __init__(self, count: int, seed: int) -> None:
        made = torch.Generator().manual_seed(seed)
        self.rows = [self._scene(made) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.rows[number]

    @staticmethod
    def _scene(made: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        image = 0.4 * torch.rand(1, SIDE, SIDE, generator=made)
        places = torch.arange(SIDE)
        boxes, labels = [], []
        for quarter in torch.randperm(4, generator=made)[: int(torch.randint(1, 4, (), generator=made))].tolist():
            size = int(torch.randint(8, 20, (), generator=made))
            left, top = (
                int(torch.randint(SIDE // 2 - size + 1, (), generator=made)) + SIDE // 2 * half
                for half in (quarter % 2, quarter // 2)
            )
            kind = int(torch.randint(1, 3, (), generator=made))
            across, down = ((places - start - (size - 1) / 2).abs() for start in (left, top))
            apart = (torch.hypot if kind == 2 else torch.maximum)(across[None], down[:, None])
            image[0][apart <= size / 2] += 0.5
            boxes.append([left, top, left + size, top + size])
            labels.append(kind)
        return image, {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(labels)}


def main() -> None:
    """Train, search, and show the winner."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each network that is compared")
    parser.add_argument("--run", type=Path, help="where everything is written; by default a free folder below runs/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, test = SingleShot(), Scenes(96, 2)
    result = autoprune.search(
        network,
        torch.rand(1, 1, SIDE, SIDE),
        constraints={"flops": "50%"},
        data={"train": Scenes(256, 0), "validation": Scenes(96, 1), "test": test},
        task="detection",
        measure={"name": "mean_average_precision", "settings": {"overlap": 0.5}},
        trained=False,
        training={"epochs": options.epochs, "lr": 1e-2, "batch_size": 16, "optimizer": "adamw"},
        trials=options.trials,
        threads=1,
        verdict={"seeds": options.seeds, "fine_tune_epochs": -(-options.epochs // 3), "protocols": ["fine_tune"]},
        run_dir=options.run,
    )
    assert result.verdict is not None
    print(result.verdict.sentence)
    image, target = test[0]
    with torch.inference_mode():
        (found,) = network.detections(result.model(image[None]), None)
    sure = found["boxes"][found["scores"] > 0.5].round().tolist()
    print(f"in the first test image are {len(target['labels'])} shapes, found {len(sure)}: {sure}")
    print(f"report: {result.report()}")


if __name__ == "__main__":
    main()
