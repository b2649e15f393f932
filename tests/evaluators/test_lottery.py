"""Lottery tickets where the user trains: masks are kept, and weights go back to where they were or to nowhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny import X, closeness, fit, perceptron
from torch import nn

from autoprune.config.space import DensityOptions
from autoprune.errors import EvaluationError
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.lottery import ticket
from autoprune.importance.members import rank_channels
from autoprune.space.groups import Widths
from autoprune.space.options.density import density_space
from autoprune.space.tracing.trace import trace
from autoprune.tasks.callable import CallableTask
from autoprune.training.protocols import rewound_to

CPU = torch.device("cpu")
MADE: dict[str, Any] = {"epochs": 2, "lr": 0.1, "seed": 3}


def density_factory(train: Any) -> CandidateFactory:
    model = perceptron()
    space = density_space(trace(model, X[:1]).space, DensityOptions(steps=16))
    ranking = rank_channels(model, space, "magnitude")
    return CandidateFactory(model, space, ranking, CallableTask(closeness, train, device=CPU), 2, inherit=())


def uniform(factory: CandidateFactory, share: float) -> Widths:
    return factory.space.nearest([share * full for full in factory.space.full])


def matrices(network: nn.Module) -> list[np.ndarray]:  # type: ignore[type-arg]
    return [p.detach().numpy().copy() for p in network.parameters() if p.ndim > 1]


def test_no_round_trains_what_an_earlier_one_has_left_out() -> None:
    begun: list[list[np.ndarray]] = []  # type: ignore[type-arg]
    ended: list[list[np.ndarray]] = []  # type: ignore[type-arg]

    def train(network: nn.Module, epochs: int, seed: int) -> None:
        begun.append(matrices(network))
        fit(network, epochs, seed)
        ended.append(matrices(network))

    factory = density_factory(train)
    widths = uniform(factory, 0.25)
    found = matrices(ticket(factory, widths, rounds=2, rewind=0.0, **MADE))
    for first, second, after, last in zip(begun[0], begun[1], ended[1], found, strict=True):
        assert (second != 0).mean() == pytest.approx(0.5, abs=0.07)
        assert ((after != 0) <= (second != 0)).all()  # Adam moved none that is left out
        assert ((last != 0) <= (second != 0)).all()
        np.testing.assert_array_equal(last, np.where(last != 0, first, 0.0))  # all the way back


def test_weights_go_back_into_the_training_but_never_to_its_end() -> None:
    states: list[list[np.ndarray]] = []  # type: ignore[type-arg]

    def train(network: nn.Module, epochs: int, seed: int, callbacks: Any) -> None:
        for epoch in range(epochs):
            fit(network, 1, seed + epoch)
            states.append(matrices(network))
            callbacks.epoch(epoch + 1)

    factory = density_factory(train)
    found = matrices(ticket(factory, uniform(factory, 0.5), rounds=1, rewind=0.9, **MADE))
    for last, early in zip(found, states[0], strict=True):
        np.testing.assert_array_equal(last, np.where(last != 0, early, 0.0))


@pytest.mark.parametrize(
    ("rewind", "epochs", "expected"), [(0.0, 10, 0), (0.01, 10, 1), (0.04, 10, 1), (0.25, 10, 2), (0.99, 10, 9)]
)
def test_whoever_goes_back_into_the_training_goes_back_to_one_epoch_at_least(
    rewind: float, epochs: int, expected: int
) -> None:
    assert rewound_to(rewind, epochs) == expected


def test_a_training_that_does_not_tell_of_its_epochs_cannot_be_gone_back_to() -> None:
    factory = density_factory(fit)
    with pytest.raises(EvaluationError, match="after epoch 1, and the training did not tell of it"):
        ticket(factory, uniform(factory, 0.5), rounds=1, rewind=0.5, **MADE)
