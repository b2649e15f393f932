"""For each task a network of a second, and examples of squares and discs in noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

SIDE, STRIDE, KINDS = 16, 4, 2


def scene(seed: int, side: int = SIDE) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """An image (1, side, side) with a square and a disc in it or one of them, its mask, and its boxes."""
    made = torch.Generator().manual_seed(seed)
    image = 0.2 * torch.rand(1, side, side, generator=made)
    mask = torch.zeros(side, side, dtype=torch.long)
    boxes, labels = [], []
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    for half, kind in enumerate((1, 2)):
        if half and int(torch.randint(2, (), generator=made)):
            continue
        size = int(torch.randint(4, side // 2, (), generator=made))
        left = half * side // 2 + int(torch.randint(side // 2 - size + 1, (), generator=made))
        top = int(torch.randint(side - size + 1, (), generator=made))
        inside = (rows >= top) & (rows < top + size) & (columns >= left) & (columns < left + size)
        if kind == 2:
            middle = (size - 1) / 2
            inside &= (rows - top - middle) ** 2 + (columns - left - middle) ** 2 <= (size / 2) ** 2
        image[0][inside] += 0.4 * kind
        mask[inside] = kind
        boxes.append([left, top, left + size, top + size])
        labels.append(kind)
    return image, mask, {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(labels)}


class Scenes(Dataset[Any]):
    """What a task is given of scenes.

    Args:
        task: its name.
        count: how many.
        first: number of the first one.
        sides: of the images, in turn.
    """

    def __init__(self, task: str, count: int, first: int = 0, sides: Sequence[int] = (SIDE,)) -> None:
        made = [scene(first + i, sides[i % len(sides)]) for i in range(count)]
        targets = {
            "segmentation": lambda mask, found: mask,
            "detection": lambda mask, found: found,
            "multilabel": lambda mask, found: torch.stack([(mask == kind).any() for kind in (1, 2)]).float(),
            "regression": lambda mask, found: torch.stack([(mask == kind).float().mean() for kind in (1, 2)]),
            "classification": lambda mask, found: (mask == 2).any().long(),
        }
        self.rows = [(image, targets[task](mask, found)) for image, mask, found in made]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Any:
        return self.rows[number]


def parts(task: str, sides: Sequence[int] = (SIDE,), counts: Sequence[int] = (40, 24, 16)) -> dict[str, Scenes]:
    """Train, validation and test."""
    starts = (0, 1000, 2000)
    roles = ("train", "validation", "test")
    return {r: Scenes(task, n, start, sides) for r, n, start in zip(roles, counts, starts, strict=True)}


def _block(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class Reader(nn.Module):
    """(N, 1, H, W) -> (N, outputs)."""

    def __init__(self, outputs: int = 2, width: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(_block(1, width), _block(width, 2 * width, 2), _block(2 * width, 2 * width, 2))
        self.head = nn.Linear(2 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.features(x).mean((2, 3)))
        return found


class TinyUNet(nn.Module):
    """(N, 1, H, W) -> logits (N, classes, H, W)."""

    def __init__(self, classes: int = 3, width: int = 6) -> None:
        super().__init__()
        self.first, self.below = _block(1, width), _block(width, 2 * width, 2)
        self.lift = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.last, self.head = _block(2 * width, width), nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.first(x)
        maps: Tensor = self.head(self.last(torch.cat([skip, self.lift(self.below(skip))], dim=1)))
        return maps


class WithAuxiliary(TinyUNet):
    """As torchvision's segmentation networks: a mapping, with `aux` in training."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Conv2d(12, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        skip = self.first(x)
        below = self.below(skip)
        found = {"out": self.head(self.last(torch.cat([skip, self.lift(below)], dim=1)))}
        if self.training:
            found["aux"] = F.interpolate(self.auxiliary(below), scale_factor=2.0)
        return found


class SingleShot(nn.Module):
    """(N, 1, H, W) -> raw maps (N, 4 + 2, H / 4, W / 4): distances to sides, and where which kind has its middle."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(_block(1, width, 2), _block(width, 2 * width, 2), _block(2 * width, 2 * width))
        self.head = nn.Conv2d(2 * width, 4 + KINDS, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.head(self.features(x))
        return maps

    def loss(self, maps: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Of classes at all cells, of boxes at those with a middle in them."""
        there, apart = torch.zeros_like(maps[:, 4:]), []
        for image, target in enumerate(targets):
            for box, label in zip(target["boxes"], target["labels"], strict=True):
                middle = (box[:2] + box[2:]) / 2
                x, y = (middle / STRIDE).long().tolist()
                there[image, int(label) - 1, y, x] = 1
                at = (torch.tensor([x, y], device=box.device) + 0.5) * STRIDE
                wanted = torch.cat([at - box[:2], box[2:] - at]).clamp(min=0.5).log()
                apart.append(F.smooth_l1_loss(maps[image, :4, y, x], wanted.to(maps)))
        classes = F.binary_cross_entropy_with_logits(maps[:, 4:], there, reduction="none").sum((1, 2, 3)).mean()
        return {"classes": classes, "boxes": torch.stack(apart).sum() / len(targets) if apart else 0 * maps.sum()}

    def detections(self, maps: Tensor, images: Any) -> list[dict[str, Tensor]]:
        """Peaks of the maps, at most five of an image."""
        scores = maps[:, 4:].sigmoid()
        peaks = torch.where(F.max_pool2d(scores, 3, 1, 1) == scores, scores, 0).flatten(1)
        found = []
        for image, (score, index) in enumerate(zip(*peaks.topk(5, dim=1), strict=True)):
            cells = maps.shape[2] * maps.shape[3]
            kind, cell = index // cells, index % cells
            x, y = cell % maps.shape[3], cell // maps.shape[3]
            side = maps[image, :4, y, x].exp()
            at = (torch.stack([x, y]) + 0.5) * STRIDE
            boxes = torch.cat([at - side[:2], at + side[2:]]).T
            found.append({"boxes": boxes, "scores": score, "labels": kind + 1})
        return found


class OfLists(nn.Module):
    """As torchvision's detectors: images of any sizes in a list; losses in training, detections else."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = SingleShot()

    def forward(self, images: Any, targets: Any = None) -> Any:
        maps = [self.inner(image[None]) for image in images]
        if self.training:
            losses = [self.inner.loss(one, [target]) for one, target in zip(maps, targets, strict=True)]
            return {name: torch.stack([loss[name] for loss in losses]).mean() for name in losses[0]}
        return [self.inner.detections(one, None)[0] for one in maps]


def seeded_network(factory: Any, seed: int) -> nn.Module:
    """A new network, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: nn.Module = factory()
        return made
