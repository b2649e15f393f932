from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.trained import train_and_score
from autoprune.inherit.bn_recalibration import CALIBRATION_BATCHES, recalibrate_batch_norm
from autoprune.tasks.callable import CallableTask
from autoprune.testing.evaluators import tiny_bench, tiny_splits
from autoprune.testing.generators import global_generators
from autoprune.training.watch import State, Stopped, Watch

CPU = torch.device("cpu")


@pytest.fixture
def factory() -> CandidateFactory:
    return tiny_bench()


def fingerprint(network: nn.Module) -> float:
    """A score that shows every change of a statistic."""
    return sum(float(b.double().sum()) for name, b in network.named_buffers() if "running" in name)


def recalibrated(network: nn.Module, factory: CandidateFactory) -> nn.Module:
    """A copy with the statistics that its weights have on the training data."""
    twin = copy.deepcopy(network)
    recalibrate_batch_norm(twin, factory.task.calibration_inputs(CALIBRATION_BATCHES, seed=0), device=CPU)
    return twin


def test_a_trained_network_is_left_and_scored_with_the_statistics_of_its_weights(factory: CandidateFactory) -> None:
    plain, network = factory.candidate(factory.space.full), factory.candidate(factory.space.full)
    factory.task.train(plain, epochs=1, seed=3, lr=0.05)
    trained = train_and_score(factory.task, network, fingerprint, epochs=1, seed=3, lr=0.05, compare=True)
    assert trained.as_trained == fingerprint(plain)
    assert trained.score == fingerprint(network) == fingerprint(recalibrated(plain, factory))
    assert abs(trained.score - fingerprint(plain)) > 0.1
    assert all(map(torch.equal, plain.parameters(), network.parameters()))
    assert not any(module.training for module in network.modules())


def test_a_network_without_norms_is_scored_once() -> None:
    scored = []

    def score(network: nn.Module) -> float:
        scored.append(network)
        return 1.0

    task = CallableTask(lambda _: 0.0, lambda *_: None, data=[torch.zeros(2, 7)], device=CPU)
    trained = train_and_score(task, nn.Linear(3, 3), score, epochs=1, seed=0, compare=True)
    assert trained.as_trained is None
    assert len(scored) == 1


class Asking(Watch):
    """Asks for the score after every epoch, and may stop."""

    def __init__(self, network: nn.Module, stops: bool = False) -> None:
        self.scores: list[tuple[float, float]] = []
        self._network, self._stops = network, stops

    def restore(self) -> State | None:
        return None

    def epoch(self, done: int, total: int, score: Callable[[], float] | None, state: Callable[[], State]) -> None:
        before = copy.deepcopy(self._network)
        assert score is not None
        self.scores.append((score(), fingerprint(before)))
        assert [m.training for m in self._network.modules()] == [m.training for m in before.modules()]
        after = self._network.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.state_dict().items())
        if self._stops:
            raise Stopped


@pytest.mark.parametrize("stops", [False, True])
def test_scores_on_the_way_are_of_recalibrated_statistics_and_disturb_nothing(
    factory: CandidateFactory, stops: bool
) -> None:
    """What is stopped early was judged like what ended."""
    watched, alone = factory.candidate(factory.space.full), factory.candidate(factory.space.full)
    watch = Asking(watched, stops)
    if stops:
        with pytest.raises(Stopped):
            train_and_score(factory.task, watched, fingerprint, epochs=3, seed=1, watch=watch, scores_epochs=True)
        assert watch.scores[0][0] == fingerprint(recalibrated(watched, factory))
        return
    ended = train_and_score(factory.task, watched, fingerprint, epochs=3, seed=1, watch=watch, scores_epochs=True)
    assert ended == train_and_score(factory.task, alone, fingerprint, epochs=3, seed=1)
    assert all(abs(score - stale) > 0.01 for score, stale in watch.scores)
    assert watch.scores[-1][0] == ended.score


def user_training(*, freeze: bool) -> Callable[[nn.Module, int, int], None]:
    def train(network: nn.Module, epochs: int, seed: int) -> None:
        network.train()
        if freeze:
            network.get_submodule("features.1").eval()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
        for _ in range(epochs):
            for inputs, targets in tiny_splits().train.batches(32, seed=seed):
                optimizer.zero_grad()
                F.cross_entropy(network(inputs), targets).backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    return train


@pytest.mark.parametrize("freeze", [False, True])
def test_networks_of_a_users_own_training_are_recalibrated_but_for_what_it_froze(
    factory: CandidateFactory, freeze: bool
) -> None:
    task = CallableTask(fingerprint, user_training(freeze=freeze), data=tiny_splits(), device=CPU)
    network = factory.candidate(factory.space.full)
    before = copy.deepcopy(network)
    trained = train_and_score(task, network, task.score, epochs=1, seed=0, compare=True)
    assert trained.as_trained not in (None, trained.score)
    kept = [
        torch.equal(before.get_buffer(f"features.{i}.running_mean"), network.get_buffer(f"features.{i}.running_mean"))
        for i in (1, 4)
    ]
    assert kept == [freeze, False]


def test_without_data_to_recalibrate_on_a_users_statistics_stay(factory: CandidateFactory) -> None:
    task = CallableTask(fingerprint, user_training(freeze=False), device=CPU)
    network, plain = factory.candidate(factory.space.full), factory.candidate(factory.space.full)
    trained = train_and_score(task, network, task.score, epochs=1, seed=0, compare=True)
    task.train(plain, epochs=1, seed=0)
    assert (trained.score, trained.as_trained) == (fingerprint(plain), None)


def test_global_generators_are_left_as_they_were(factory: CandidateFactory) -> None:
    generators = global_generators()
    train_and_score(factory.task, factory.candidate(factory.space.full), fingerprint, epochs=1, seed=0, compare=True)
    assert global_generators() == generators
