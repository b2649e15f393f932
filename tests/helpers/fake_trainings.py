"""Evaluators that train a tiny network for some epochs; every epoch leaves a line on disk, and some misbehave."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn

from autoprune.data.base import Augmentation, TensorSplit
from autoprune.engines.base import WorkerSetup
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.space.groups import Widths
from autoprune.training.loop import train
from autoprune.training.recipe import Recipe
from autoprune.training.watch import Watch

EPOCHS = 5
Behaviour = Callable[[Widths, int, int, Path], None]
"""(widths, epoch that has ended, how often it had ended before, a folder), called before the epoch is reported."""


class Training(Evaluator):
    """Trains a perceptron with as many hidden units as the first width, slowly enough to be interrupted."""

    kind = "training"

    def __init__(self, factory: object, *, folder: Path, behaviour: Behaviour) -> None:
        self._folder, self._behaviour = folder, behaviour

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        network = perceptron(widths)

        def score() -> float:
            return sum(widths) + sum(float(p.detach().abs().sum()) for p in network.parameters()) / 1e4

        def progress(done: int, total: int, loss: float) -> None:
            before = epochs(self._folder)[widths, done]
            with (self._folder / "epochs.txt").open("a") as file:
                file.write(f"{'-'.join(map(str, widths))} {done} {os.getpid()}\n")
            self._behaviour(widths, done, before, self._folder)

        recipe = Recipe(epochs=EPOCHS, batch_size=8, augment=False)
        train(
            network, data(), recipe, seed=seed, device=torch.device("cpu"), progress=progress, watch=watch, score=score
        )
        return score()


def perceptron(widths: Widths) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(widths[0])
        return nn.Sequential(
            nn.Flatten(), nn.Linear(16, widths[0]), nn.ReLU(), nn.Dropout(0.5), nn.Linear(widths[0], 2)
        )


def data() -> TensorSplit:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (32, 1, 4, 4), generator=generator, dtype=torch.uint8)
    plain = Augmentation(pad=0, flip=False)
    return TensorSplit(images, torch.arange(32) % 2, mean=(0.5,), std=(0.3,), augmentation=plain)


def epochs(folder: Path) -> Counter[tuple[Widths, int]]:
    """How often each (widths, epoch) was trained."""
    file = folder / "epochs.txt"
    lines = [line.split() for line in file.read_text().splitlines()] if file.is_file() else []
    return Counter((tuple(map(int, widths.split("-"))), int(epoch)) for widths, epoch, _ in lines)


def setup(folder: Path, behaviour: Behaviour) -> WorkerSetup:
    """A setup of such an evaluator; its factory has a task without data and nothing else."""
    factory = SimpleNamespace(task=SimpleNamespace(device=torch.device("cpu")))
    evaluator = functools.partial(Training, folder=folder, behaviour=behaviour)
    return WorkerSetup(cast("CandidateFactory", factory), cast("Any", evaluator), "training", 1, folder)


def plain(widths: Widths, epoch: int, before: int, folder: Path) -> None:
    """Nothing happens."""


def slow(widths: Widths, epoch: int, before: int, folder: Path) -> None:
    """An epoch takes a fifth of a second."""
    time.sleep(0.2)


def dies_once(widths: Widths, epoch: int, before: int, folder: Path) -> None:
    """Every third candidate kills its worker in its third epoch, the first time."""
    if sum(widths) % 3 == 0 and epoch == 3 and not before:
        os.kill(os.getpid(), signal.SIGKILL)


def misbehaves(widths: Widths, epoch: int, before: int, folder: Path) -> None:
    """Every candidate does something else wrong in its third epoch, or nothing."""
    if epoch < 3:
        return
    match sum(widths) % 5:
        case 0:
            raise ArithmeticError(f"no score for {sum(widths)}")
        case 1:
            time.sleep(1e6)
        case 2:
            kept = []
            while True:
                kept.append(bytearray(b"x") * 100_000_000)
                time.sleep(0.01)
        case 3:
            os.kill(os.getpid(), signal.SIGKILL)


def loses_its_storage(widths: Widths, epoch: int, before: int, folder: Path) -> None:
    """From the second epoch on, states cannot be written: a file is in the way."""
    place = folder / "states"
    if epoch == 2 and place.is_dir():
        place.rename(folder / "states.gone")
        place.write_text("")
