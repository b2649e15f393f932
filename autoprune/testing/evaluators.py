"""The contract of every evaluator, as a test class: subclass it and give it a factory.

class TestMine(EvaluatorContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda factory: Mine(factory, epochs=1)

Longer than others, as the laws of one interface are read together, with the problem that they are tried on.
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

import io
import math
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeAlias, final

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from autoprune.config.space import DensityOptions
from autoprune.config.training import Recipe
from autoprune.data import splits_from
from autoprune.data.base import DataSplits
from autoprune.evaluators.artefact import LIST, files_of, prepared
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.importance.members import rank_channels
from autoprune.space.cutting.slicing import Ranking
from autoprune.space.groups import SearchSpace
from autoprune.space.options.density import density_space
from autoprune.space.tracing.trace import trace
from autoprune.tasks.classification import ClassificationTask
from autoprune.tasks.score import Score, as_score
from autoprune.testing.generators import global_generators
from autoprune.testing.once import made_once
from autoprune.training.watch import State, Stopped, Watch

Make: TypeAlias = Callable[[CandidateFactory], Evaluator]
"""factory -> a new evaluator, set to be quick."""

Bench: TypeAlias = Callable[[], CandidateFactory]
"""A small problem, the same one at every call."""

_CLASSES, _SIDE = 4, 6


@final
class TinyNet(nn.Module):
    """Two convolutions with batch norms, dropout and a classifier of (N, 1, 6, 6) images."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, padding=1, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Dropout(0.1),
        )
        self.head = nn.Linear(12, _CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 1, 6, 6) to logits (N, 4)."""
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


@cache
def tiny_splits() -> DataSplits:
    """Noisy stripes whose direction and phase are the class: 256 training and 128 validation images."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(384) % _CLASSES
    stripes = torch.arange(_SIDE) % 2 * 2.0 - 1.0
    patterns = torch.stack([stripes.expand(_SIDE, _SIDE), stripes[:, None].expand(_SIDE, _SIDE)])
    images = patterns[labels % 2] * (1.0 + labels // 2)[:, None, None]
    images = (images + 0.7 * torch.randn(384, _SIDE, _SIDE, generator=generator))[:, None]
    return splits_from((TensorDataset(images[:256], labels[:256]), TensorDataset(images[256:], labels[256:])))


def tiny_bench() -> CandidateFactory:
    """A workbench around a new, briefly trained `TinyNet`; every call gives the same one."""
    model, space, ranking = _trained()
    return CandidateFactory(model, space, ranking, _task(), base_epochs=3)


@made_once
def _trained() -> tuple[nn.Module, SearchSpace, Ranking]:
    model = TinyNet()
    _task().train(model, epochs=3, seed=0)
    model.zero_grad()
    space = trace(model, torch.zeros(1, 1, _SIDE, _SIDE)).space
    ranking = rank_channels(model, space, "l2")
    for ranks in ranking:
        ranks.setflags(write=False)
    return model, space, ranking


def _task() -> ClassificationTask:
    recipe = Recipe(epochs=3, lr=0.1, batch_size=32, weight_decay=5e-4)
    return ClassificationTask(tiny_splits(), recipe, device=torch.device("cpu"))


def tiny_density_bench() -> CandidateFactory:
    """As `tiny_bench`, in the space of the densities of its layers."""
    bench = tiny_bench()
    space = density_space(bench.space, DensityOptions(steps=16, min_density=0.05))
    return replace(bench, space=space, ranking=rank_channels(bench.model, space, "magnitude"))


@final
class InterruptingWatch(Watch):
    """Keeps the last state as bytes, and stops after the first epoch that it is told of where there was none before.

    Args:
        stops: it does; else it only keeps.
    """

    def __init__(self, *, stops: bool = True) -> None:
        self._kept: bytes | None = None
        self._stops, self._interrupts = stops, False
        self.epochs: list[int] = []

    def restore(self) -> State | None:
        """See `Watch.restore`."""
        self._interrupts = self._kept is None
        state: State | None = None if self._kept is None else torch.load(io.BytesIO(self._kept), weights_only=True)
        return state

    def epoch(self, done: int, total: int, score: Callable[[], float] | None, state: Callable[[], State]) -> None:
        """See `Watch.epoch`."""
        self.epochs.append(done)
        if score is not None:
            assert math.isfinite(float(score()))
        buffer = io.BytesIO()
        torch.save(state(), buffer)
        self._kept = buffer.getvalue()
        if self._interrupts and self._stops:
            raise Stopped


@final
class StoppingAtOnce(Watch):
    """Asks for a score and stops, whenever it is told of anything."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.scores: list[float] = []

    def restore(self) -> State | None:
        """See `Watch.restore`."""
        return None

    def epoch(self, done: int, total: int, score: Callable[[], float] | None, state: Callable[[], State]) -> None:
        """See `Watch.epoch`."""
        self.shares.append(done / total)
        if score is not None:
            self.scores.append(float(score()))
        raise Stopped


class EvaluatorContract:
    """Laws that hold for every evaluator; the subclass provides the fixture `make`."""

    @pytest.fixture
    def make(self) -> Make:
        """Return the factory under test."""
        raise NotImplementedError("override the fixture `make`: it returns a function (factory) -> Evaluator")

    @pytest.fixture
    def bench(self) -> Bench:
        """Return what gives a small problem that is learned in seconds; override it for another kind of space."""
        return tiny_bench

    @pytest.fixture
    def factory(self, bench: Bench) -> CandidateFactory:
        """Return that problem."""
        return bench()

    @pytest.fixture
    def ready(self, make: Make, tmp_path_factory: pytest.TempPathFactory) -> Make:
        """Return the factory under test, whose evaluators have what they prepare."""

        def build(factory: CandidateFactory) -> Evaluator:
            evaluator = make(factory)
            evaluator.load(prepared(make(factory), tmp_path_factory.mktemp("run"), seed=3))
            return evaluator

        return build

    def test_every_member_of_the_space_gets_a_finite_score(self, ready: Make, factory: CandidateFactory) -> None:
        evaluator, space = ready(factory), factory.space
        for widths in (space.full, space.smallest, space.uniform(0.5)):
            for full in (False, True):
                score = evaluator.evaluate(widths, seed=0, full=full)
                assert isinstance(score, float | Score)
                assert math.isfinite(float(score))

    def test_same_widths_and_seed_give_the_same_score(
        self, ready: Make, factory: CandidateFactory, bench: Bench
    ) -> None:
        widths = factory.space.uniform(0.5)
        evaluator = ready(factory)
        first = evaluator.evaluate(widths, seed=5)
        evaluator.evaluate(factory.space.smallest, seed=6)
        torch.rand(1)
        assert evaluator.evaluate(widths, seed=5) == first
        assert ready(bench()).evaluate(widths, seed=5) == first

    def test_the_whole_network_is_better_than_the_narrowest(self, ready: Make, factory: CandidateFactory) -> None:
        evaluator, space = ready(factory), factory.space
        whole, narrowest = (evaluator.evaluate(widths, seed=0) for widths in (space.full, space.smallest))
        assert float(whole) > float(narrowest)

    def test_an_interrupted_training_ends_with_the_score_of_a_whole_one(
        self, ready: Make, factory: CandidateFactory, bench: Bench
    ) -> None:
        evaluator, widths = ready(factory), factory.space.uniform(0.5)
        if evaluator.kind == "short":
            pytest.skip("evaluators of kind 'short' are not watched")
        whole, watch = evaluator.evaluate(widths, seed=5), InterruptingWatch()
        try:
            evaluator.evaluate(widths, seed=5, watch=watch)
        except Stopped:
            assert ready(bench()).evaluate(widths, seed=5, watch=watch) == whole
        assert watch.epochs == sorted(set(watch.epochs)), "an epoch was trained twice"

    def test_a_score_is_a_number_or_one_with_what_is_known_of_its_noise(
        self, ready: Make, factory: CandidateFactory
    ) -> None:
        given = ready(factory).evaluate(factory.space.uniform(0.5), seed=0)
        score = as_score(given)
        assert math.isfinite(score.value)
        assert isinstance(given, float) or score.standard_error is None or score.standard_error >= 0

    def test_scores_on_the_way_are_numbers_and_a_stop_is_obeyed(self, ready: Make, factory: CandidateFactory) -> None:
        evaluator, watch = ready(factory), StoppingAtOnce()
        if evaluator.kind == "short":
            pytest.skip("evaluators of kind 'short' are not watched")
        before = {name: tensor.clone() for name, tensor in factory.model.state_dict().items()}
        with suppress(Stopped):  # those that report nothing cannot be stopped
            evaluator.evaluate(factory.space.uniform(0.5), seed=5, watch=watch)
        assert len(watch.shares) <= 1, "it went on after it was told to stop"
        assert all(0 < share <= 1 for share in watch.shares)
        assert all(math.isfinite(score) for score in watch.scores)
        assert all(torch.equal(before[name], tensor) for name, tensor in factory.model.state_dict().items())

    def test_what_it_prepares_is_made_once_and_is_the_same_after_a_kill(
        self, make: Make, factory: CandidateFactory, bench: Bench, tmp_path: Path
    ) -> None:
        """The run is killed when all is made and nothing yet says so; workers read a copy, in a place of its own."""
        widths, run = factory.space.uniform(0.5), tmp_path / "run"
        run.mkdir()
        folder = prepared(make(factory), run, seed=3)
        shutil.copytree(folder, tmp_path / "worker")
        first = files_of(folder)
        (run / LIST).unlink()
        assert files_of(prepared(make(bench()), run, seed=3)) == first
        changed = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        assert prepared(make(factory), run, seed=3) == folder
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == changed, "it was prepared twice"
        scores = []
        for place in (folder, tmp_path / "worker"):
            evaluator = make(factory)
            evaluator.load(place)
            scores.append(float(evaluator.evaluate(widths, seed=5)))
        assert scores[0] == scores[1]
        assert files_of(folder) == first, "what is prepared is only read"

    def test_base_network_and_global_generators_are_left_as_they_were(
        self, ready: Make, factory: CandidateFactory
    ) -> None:
        factory.model.train()
        factory.model.get_submodule("features.1").eval()
        flags = [module.training for module in factory.model.modules()]
        tensors = {name: tensor.clone() for name, tensor in factory.model.state_dict().items()}
        generators = global_generators()
        evaluator = ready(factory)
        for seed in (0, 1):
            evaluator.evaluate(factory.space.uniform(0.5), seed=seed)
        assert [module.training for module in factory.model.modules()] == flags
        assert all(torch.equal(tensors[name], tensor) for name, tensor in factory.model.state_dict().items())
        assert all(parameter.grad is None for parameter in factory.model.parameters())
        assert global_generators() == generators
