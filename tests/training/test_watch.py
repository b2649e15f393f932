from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch
from tiny import pictures, same_weights
from torch import Tensor, nn

from autoprune.data.base import Augmentation, LoaderSplit, Split, TensorSplit
from autoprune.testing.generators import global_generators
from autoprune.training.loop import train
from autoprune.training.recipe import Recipe
from autoprune.training.watch import State, Stopped, Watch

CPU = torch.device("cpu")


@final
class FileWatch(Watch):
    """Keeps the last state in a file and stops after some epochs."""

    def __init__(self, path: Path, *, last: int | None = None) -> None:
        self._path, self._last = path, last
        self.epochs: list[int] = []
        self.scores: list[float] = []

    def restore(self) -> State | None:
        return torch.load(self._path, weights_only=True) if self._path.exists() else None

    def epoch(self, done: int, total: int, score: Callable[[], float] | None, state: Callable[[], State]) -> None:
        self.epochs.append(done)
        if score is not None:
            self.scores.append(score())
        torch.save(state(), self._path)
        if done == self._last:
            raise Stopped


@final
class Drawing(nn.Module):
    """Draws from every global generator while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(144, 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        noise = random.random() + np.random.random() if self.training else 1.0
        return self.body(x) * noise


def network() -> Drawing:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Drawing()


def tensors() -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 255, (64, 1, 8, 8), generator=generator, dtype=torch.uint8)
    augmentation = Augmentation(pad=1, flip=True)
    return TensorSplit(images, torch.arange(64) % 4, mean=(0.5,), std=(0.3,), augmentation=augmentation)


def loaded() -> Split:
    return LoaderSplit(pictures(64, 0))


RECIPES: list[dict[str, Any]] = [
    {"warmup_epochs": 1},
    {"schedule": "step", "nesterov": False},
    {"momentum": 0.0, "nesterov": False, "channels_last": True},
]


@pytest.mark.parametrize("split", [tensors, loaded])
@pytest.mark.parametrize("options", RECIPES)
@pytest.mark.parametrize("interrupted", [1, 3])
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    tmp_path: Path, split: Callable[[], Split], options: dict[str, Any], interrupted: int
) -> None:
    recipe = Recipe(epochs=4, batch_size=16, **options)
    whole, first, second = network(), network(), network()
    expected = train(whole, split(), recipe, seed=5, device=CPU)
    with pytest.raises(Stopped):
        train(first, split(), recipe, seed=5, device=CPU, watch=FileWatch(tmp_path / "state", last=interrupted))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # another process
    watch = FileWatch(tmp_path / "state")
    records = train(second, split(), recipe, seed=5, device=CPU, watch=watch)
    assert watch.epochs == list(range(interrupted + 1, 5))
    assert same_weights(second, whole)
    assert not same_weights(first, whole)
    assert [(r.epoch, r.loss, r.lr) for r in records] == [(r.epoch, r.loss, r.lr) for r in expected]


def test_watching_and_scoring_change_nothing(tmp_path: Path) -> None:
    plain, watched = network(), network()
    recipe = Recipe(epochs=3, batch_size=16)
    train(plain, tensors(), recipe, seed=5, device=CPU)
    watch = FileWatch(tmp_path / "state")
    before = global_generators()
    train(
        watched, tensors(), recipe, seed=5, device=CPU, watch=watch, score=lambda: watched.body[1].weight.sum().item()
    )
    assert global_generators() == before
    assert same_weights(plain, watched)
    assert watch.epochs == [1, 2, 3]
    assert len(set(watch.scores)) == 3


def test_a_state_taken_after_an_epoch_does_not_follow_the_training(tmp_path: Path) -> None:
    @final
    class Keeping(Watch):
        states: list[State] = []  # noqa: RUF012

        def restore(self) -> State | None:
            return None

        def epoch(self, done: int, total: int, score: Callable[[], float] | None, state: Callable[[], State]) -> None:
            self.states.append(state())

    watch = Keeping()
    train(network(), tensors(), Recipe(epochs=2, batch_size=16), seed=5, device=CPU, watch=watch)
    weights = [state["model"]["body.0.weight"] for state in watch.states]
    assert not torch.equal(*weights)
    assert [len(state["epochs"]) for state in watch.states] == [1, 2]


@pytest.mark.parametrize(("seed", "epochs", "width"), [(6, 4, 4), (5, 3, 4), (5, 4, 3)])
def test_the_state_of_another_training_is_left_alone(tmp_path: Path, seed: int, epochs: int, width: int) -> None:
    other = network()
    if width != 4:
        other.body[0], other.body[1], other.body[5] = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(108, 4)
    with pytest.raises(Stopped):
        train(other, tensors(), Recipe(epochs=4), seed=5, device=CPU, watch=FileWatch(tmp_path / "state", last=2))
    plain, watched = network(), network()
    train(plain, tensors(), Recipe(epochs=epochs), seed=seed, device=CPU)
    train(watched, tensors(), Recipe(epochs=epochs), seed=seed, device=CPU, watch=FileWatch(tmp_path / "state"))
    assert same_weights(plain, watched)


def test_the_random_state_comes_back_when_a_watch_stops(tmp_path: Path) -> None:
    before = global_generators()
    with pytest.raises(Stopped):
        train(network(), tensors(), Recipe(epochs=2), seed=5, device=CPU, watch=FileWatch(tmp_path / "state", last=1))
    assert global_generators() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", [{}, {"amp": True}, {"amp": True, "channels_last": True}])
def test_an_interrupted_training_on_cuda_goes_on(tmp_path: Path, options: dict[str, Any]) -> None:
    device, recipe = torch.device("cuda"), Recipe(epochs=4, batch_size=16, **options)
    whole, first, second = network(), network(), network()
    train(whole, tensors(), recipe, seed=5, device=device)
    with pytest.raises(Stopped):
        train(first, tensors(), recipe, seed=5, device=device, watch=FileWatch(tmp_path / "state", last=2))
    torch.cuda.manual_seed_all(9)
    watch = FileWatch(tmp_path / "state")
    train(second, tensors(), recipe, seed=5, device=device, watch=watch)
    assert watch.epochs == [3, 4]
    for name, tensor in second.state_dict().items():
        torch.testing.assert_close(tensor, whole.state_dict()[name], rtol=1e-3, atol=1e-4)
