"""A train_func gets what it has keywords for: the teacher, the cut, callbacks; the old signature goes on working."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from autoprune.config.parts import NamedPart
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.tasks.callable import CallableTask
from autoprune.testing.evaluators import InterruptingWatch, TinyNet, tiny_bench
from autoprune.testing.objectives import same_weights
from autoprune.training.integrity import Snapshot
from autoprune.training.watch import Stopped
from autoprune.verdict.finals import PlannedFinal, train_final

CPU = torch.device("cpu")


def task(train_func: Any) -> CallableTask:
    return CallableTask(lambda model: 0.0, train_func, device=CPU)


def final(train_func: Any, protocol: str = "fine_tune") -> None:
    base = tiny_bench()
    factory = CandidateFactory(base.model, base.space, base.ranking, task(train_func), base_epochs=3, inherit=())
    before = Snapshot(base.model)
    train_final(factory, PlannedFinal(base.space.smallest, NamedPart(name=protocol), 0, 2, 0.1, False))
    assert before.changed() is None


@pytest.mark.parametrize("protocol", ["fine_tune", "scratch_e"])
def test_a_final_training_gives_the_teacher_and_the_cut(protocol: str) -> None:
    given: dict[str, Any] = {}

    def train(model: nn.Module, epochs: int, seed: int, *, teacher: Any, cut: Any) -> None:
        given.update(teacher=teacher, cut=cut, model=model)
        assert not teacher.training
        assert not any(p.requires_grad for p in teacher.parameters())

    final(train, protocol)
    kept = given["cut"].kept["features.3.weight"]
    assert given["model"].features[3].weight.shape == (len(kept[0]), len(kept[1]), 3, 3)
    assert same_weights(given["teacher"], tiny_bench().model)


def test_the_old_signature_and_names_of_ones_own_go_on_working() -> None:
    calls: list[Any] = []
    final(lambda model, epochs, seed: calls.append(epochs))
    final(lambda network, n, s, lr=0.5: calls.append(lr))
    assert calls == [2, 0.5]


def by_epochs(model: nn.Module, epochs: int, seed: int, callbacks: Any) -> None:
    earlier = callbacks.restore()
    done = 0
    if earlier is not None:
        done = earlier["done"]
        model.load_state_dict(earlier["model"])
    for epoch in range(done + 1, epochs + 1):
        with torch.no_grad():
            model.head.bias += epoch
        callbacks.epoch(epoch, loss=1.0 / epoch, state=lambda e=epoch: {"done": e, "model": model.state_dict()})


def test_callbacks_show_progress_stop_and_resume() -> None:
    def trained(watch: Any = None) -> nn.Module:
        torch.manual_seed(0)
        network = TinyNet()
        task(by_epochs).train(network, epochs=3, seed=1, watch=watch, progress=lambda *told: seen.append(told))
        return network

    seen: list[Any] = []
    whole, watch = trained(), InterruptingWatch()
    assert seen == [(1, 3, 1.0), (2, 3, 0.5), (3, 3, 1.0 / 3)]
    with pytest.raises(Stopped):
        trained(watch)
    assert same_weights(trained(watch), whole)
    assert watch.epochs == [1, 2, 3]
