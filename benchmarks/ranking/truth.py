"""The ground truth: every vector of widths trained three times each way, by one plain loop of torch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autoprune.inherit.base import Chain, Statistics
from autoprune.inherit.bn_recalibration import recalibrate_batch_norm
from autoprune.space.copying import copy_network
from autoprune.space.cutting.slicing import Slicer
from autoprune.space.groups import Widths
from autoprune.training.protocols import reinitialise
from ranking.networks import VECTORS, Ranked

SEEDS = 3
IMAGES = 9_000
"""That every training sees once per epoch, of those that the base network was trained on."""
_BATCH = 128
_TEMPERATURE, _ALPHA = 4.0, 0.9
_CPU = torch.device("cpu")
_LAYOUT = torch.channels_last


@final
@dataclass(frozen=True, slots=True)
class Way:
    """How networks are trained; all by SGD with Nesterov's momentum and a cosine after a tenth of warm-up.

    Attributes:
        epochs: passes over the images.
        lr: highest learning rate.
        inherits: starts from reconstructed weights and learns from the full network; else fresh weights, labels alone.
    """

    epochs: int
    lr: float
    inherits: bool


WAYS = {"fine-tuned": Way(1, 0.02, True), "from scratch": Way(2, 0.1, False)}


@final
@dataclass(frozen=True, slots=True)
class Training:
    """One training of the ground truth; what it gave is None until it is known.

    Attributes:
        network: its name.
        budget: percent of the FLOPs.
        number: of the vector.
        way: one of `WAYS`.
        seed: of the training.
        widths: of the network.
        score: percent of the test images that are right.
        images: forward passes of training, in images.
        cpu_seconds: of the training, reconstruction and scoring included.
    """

    network: str
    budget: int
    number: int
    way: str
    seed: int
    widths: Widths
    score: float | None = None
    images: int = 0
    cpu_seconds: float = 0.0

    @property
    def key(self) -> tuple[str, int, int, str, int]:
        """What it is a training of."""
        return self.network, self.budget, self.number, self.way, self.seed


def all_trainings(vectors: Mapping[str, Mapping[int, Sequence[Widths]]]) -> Iterator[Training]:
    """In the order of work: an early end leaves the same vectors of every network and budget complete.

    Args:
        vectors: name of a network -> percent of the FLOPs -> widths.
    """
    for number in range(max(VECTORS.values())):
        for network, of_budgets in vectors.items():
            for budget, widths in of_budgets.items():
                if number < len(widths):
                    for way in WAYS:
                        for seed in range(SEEDS):
                            yield Training(network, budget, number, way, seed, widths[number])


@final
class Trainer:
    """Trains vectors of one network.

    Args:
        ranked: the network.
        folder: where the full network's outputs are kept.
    """

    def __init__(self, ranked: Ranked, folder: Path) -> None:
        self._ranked, self._folder = ranked, folder
        self._slicer = Slicer(ranked.model, ranked.space, ranked.ranking)
        self._test = list(_part(ranked, "test").batches(500))
        train = _part(ranked, "train")
        self._calibration = [x for x, _ in train.batches(_BATCH, limit=10 * _BATCH)]
        self._statistics = Statistics(lambda number: [x for x, _ in train.batches(_BATCH, limit=number * _BATCH)], _CPU)
        self._chain = Chain(["sequential_least_squares"])
        self._chain.prepare(self._statistics)
        self._taught: dict[int, Tensor] = {}
        self._refitted: dict[Widths, tuple[nn.Module, float]] = {}

    def train(self, given: Training) -> Training:
        """Fill in a training."""
        start, way, refitted_in = time.process_time(), WAYS[given.way], 0.0
        if way.inherits:
            network, refitted_in = self._inheriting(given.widths)
            start, taught = time.process_time(), self._outputs(given.seed)
        else:
            network, taught = self._slicer(given.widths), None
            reinitialise(network, seed=given.seed)
        self._run(network.to(memory_format=_LAYOUT), way, given.seed, taught)
        recalibrate_batch_norm(network, self._calibration, device=_CPU)
        return Training(
            *given.key,
            widths=given.widths,
            score=self._score(network),
            images=way.epochs * IMAGES,
            cpu_seconds=time.process_time() - start + refitted_in,
        )

    def _inheriting(self, widths: Widths) -> tuple[nn.Module, float]:
        """A network with reconstructed weights, and the seconds that these took; the last widths' are kept."""
        if widths not in self._refitted:
            start = time.process_time()
            network = self._chain.apply(self._slicer.cut(widths), self._ranked.model, self._statistics)
            self._refitted = {widths: (network, time.process_time() - start)}
        network, seconds = self._refitted[widths]
        return copy_network(network), seconds

    def _run(self, network: nn.Module, way: Way, seed: int, taught: Tensor | None) -> None:
        steps = way.epochs * -(-IMAGES // _BATCH)
        optimizer = torch.optim.SGD(network.parameters(), lr=way.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
        warm = steps // 10
        schedule = torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=warm),
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warm),
            ],
            milestones=[warm],
        )
        network.train()
        for epoch in range(way.epochs):
            done = 0
            for inputs, labels in self._batches(seed, epoch):
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    outputs = network(inputs.contiguous(memory_format=_LAYOUT))
                outputs = outputs.float()
                loss = F.cross_entropy(outputs, labels)
                if taught is not None:
                    loss = _distilled(outputs, taught[done : done + len(inputs)], loss)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                done += len(inputs)
        network.eval()

    def _batches(self, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The same ones for every vector, so that what they do to a score does not tell vectors apart."""
        train = _part(self._ranked, "train")
        return train.batches(_BATCH, seed=100 * seed + epoch, augment=True, limit=IMAGES)

    def _outputs(self, seed: int) -> Tensor:
        """(images, classes) outputs of the full network in the order of the one epoch that learns from it."""
        place = self._folder / f"taught-{self._ranked.name}-{seed}.safetensors"
        if seed not in self._taught and place.exists():
            self._taught[seed] = load_file(place)["outputs"]
        if seed not in self._taught:
            with torch.no_grad():
                self._taught[seed] = torch.cat([self._ranked.model(x) for x, _ in self._batches(seed, 0)])
            partial = place.with_suffix(f".{time.monotonic_ns()}")
            save_file({"outputs": self._taught[seed]}, partial)
            partial.rename(place)
        return self._taught[seed]

    def _score(self, network: nn.Module) -> float:
        with torch.inference_mode():
            right = sum(int((network(x.contiguous(memory_format=_LAYOUT)).argmax(1) == y).sum()) for x, y in self._test)
        return 100 * right / sum(len(y) for _, y in self._test)


def _distilled(outputs: Tensor, taught: Tensor, loss: Tensor) -> Tensor:
    t = _TEMPERATURE
    divergence = F.kl_div(
        F.log_softmax(outputs / t, 1), F.log_softmax(taught / t, 1), reduction="batchmean", log_target=True
    )
    return _ALPHA * t**2 * divergence + (1 - _ALPHA) * loss


def _part(ranked: Ranked, name: str) -> Any:
    part = getattr(ranked.splits, name)
    assert part is not None
    return part
