"""The trained networks that are cut: made once with a plain loop of torch, kept as files, read the next time.

Weights of those that results in `docs/results/` are about lie in `weights/`: figures made later are about them, too.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autoprune.data.base import DataSplits
from autoprune.data.cifar10 import load as cifar10
from autoprune.data.fashion_mnist import load as fashion_mnist
from autoprune.zoo import build_model
from reconstruction.vit import SmallViT

TEST_IMAGES = 5_000
WEIGHTS = Path(__file__).parent / "weights"
"""Of networks that results are about, and the widths that searches found for them."""

IMAGES = 512
"""Of calibration."""


@final
@dataclass(frozen=True, slots=True)
class Base:
    """A network, its data, and how it is trained.

    Attributes:
        build: makes it with random weights.
        data: name of the data set.
        load: (limits as keywords) -> the splits.
        images: how many training images.
        epochs: passes over them.
        lr: highest learning rate; cosine without restarts after two epochs of warm-up.
        adam: AdamW in place of SGD with Nesterov's momentum.
    """

    build: Callable[[], nn.Module]
    data: str
    load: Callable[..., DataSplits]
    images: int = 15_000
    epochs: int = 15
    lr: float = 0.1
    adam: bool = False
    weight_decay: float = 5e-4


BASES: Mapping[str, Base] = {
    "resnet20": Base(lambda: build_model("resnet20"), "cifar10", cifar10, epochs=20),
    "mobilenetv2": Base(
        lambda: build_model("mobilenetv2", {"in_channels": 1, "width": 0.5}), "fashion_mnist", fashion_mnist, epochs=8
    ),
    "vit": Base(
        lambda: SmallViT(1, 28), "fashion_mnist", fashion_mnist, epochs=15, lr=2e-3, adam=True, weight_decay=0.05
    ),
}


@final
@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network in eval mode, and what it is measured on.

    Attributes:
        name: of the network.
        model: only read.
        example: one input, in a batch of one.
        batches: of calibration, (inputs, targets); targets None where nothing is labelled.
        score: network -> score on test examples, higher is better.
        unit: of the score.
    """

    name: str
    model: nn.Module
    example: Tensor
    batches: list[tuple[Tensor, Tensor | None]]
    score: Callable[[nn.Module], float]
    unit: str

    @cached_property
    def base(self) -> float:
        """Score of the model."""
        return self.score(self.model)

    @property
    def labelled(self) -> bool:
        """Whether the calibration examples have targets."""
        return self.batches[0][1] is not None


def trained(name: str, folder: Path, *, seed: int, data: Path | None) -> Trained:
    """Read a base network, here or in `weights/`, or train it and keep it."""
    base = BASES[name]
    splits = base.load(path=data, train_limit=base.images, test_limit=TEST_IMAGES)
    torch.manual_seed(seed)
    model = base.build()
    file = f"{name}-{base.data}-{seed}.safetensors"
    place = folder / file if (folder / file).exists() else WEIGHTS / file
    folder.mkdir(parents=True, exist_ok=True)
    if place.exists():
        model.load_state_dict(load_file(place))
    else:
        _train(model, base, splits, seed=seed)
        partial = (folder / file).with_suffix(".part")
        save_file(model.state_dict(), partial)
        partial.rename(folder / file)
    batches: list[tuple[Tensor, Tensor | None]] = list(islice(splits.train.batches(128, seed=seed), IMAGES // 128))
    example = batches[0][0][:1]
    return Trained(name, model.eval(), example, batches, accuracy_on(splits), "%")


def demosaicing() -> Trained | None:
    """The pretrained network of `examples/pretrained_demosaic.py`; None where its package is not installed."""
    if importlib.util.find_spec("demosaicnet") is None:
        return None
    import pretrained_demosaic as given

    test = given.tiles("test")
    inputs = given.tiles("train")
    batches: list[tuple[Tensor, Tensor | None]] = [(part, None) for part in inputs.split(8)]
    return Trained("demosaic", given.network(), inputs[:1], batches, lambda model: given.psnr(model, test), "dB")


def accuracy_on(splits: DataSplits) -> Callable[[nn.Module], float]:
    """Network -> percent of right answers on the test images."""
    test = splits.test
    assert test is not None
    images = list(test.batches(500))

    def accuracy(model: nn.Module) -> float:
        with torch.inference_mode():
            right = sum(int((model.eval()(inputs).argmax(1) == labels).sum()) for inputs, labels in images)
        return 100 * right / len(test)

    return accuracy


def _train(model: nn.Module, base: Base, splits: DataSplits, *, seed: int) -> None:
    steps = base.epochs * -(-len(splits.train) // 128)
    optimizer: torch.optim.Optimizer
    if base.adam:
        optimizer = torch.optim.AdamW(model.parameters(), lr=base.lr, weight_decay=base.weight_decay)
    else:
        optimizer = torch.optim.SGD(
            model.parameters(), lr=base.lr, momentum=0.9, nesterov=True, weight_decay=base.weight_decay
        )
    warm = 2 * steps // base.epochs
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=warm),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warm),
        ],
        milestones=[warm],
    )
    for epoch in range(base.epochs):
        start, total = time.perf_counter(), 0.0
        model.train()
        for inputs, labels in splits.train.batches(128, seed=seed + epoch, augment=True):
            loss = F.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(inputs)
        mean = total / len(splits.train)
        print(f"epoch {epoch + 1}/{base.epochs}: loss {mean:.3f}, {time.perf_counter() - start:.0f} s", flush=True)
    model.eval()
