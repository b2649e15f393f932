"""Lottery tickets: masks, or whole channels, found by rounds of training, magnitude pruning and rewinding.

Frankle and Carbin 2019, arXiv 1803.03635; rewinding to weights of early training: Frankle et al., arXiv 1912.05671.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import final

from torch import nn

from autoprune.errors import EvaluationError
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.importance.members import rank_channels
from autoprune.space.copying import copy_network
from autoprune.space.cutting.masks import gradients_masked, keep_masks
from autoprune.space.cutting.narrowed import narrowed
from autoprune.space.cutting.slicing import Slicer
from autoprune.space.groups import SearchSpace, Widths
from autoprune.training.protocols import reinitialise, rewound_to
from autoprune.training.watch import State, Watch


def ticket(
    factory: CandidateFactory, widths: Widths, *, rounds: int, rewind: float, epochs: int, lr: float, seed: int
) -> nn.Module:
    """The network of these widths that was found in rounds, with the weights that it is to be trained from.

    Args:
        factory: gives the network and trains it.
        widths: of the ticket; densities, or channels of whole tickets.
        rounds: how many; each costs a training.
        rewind: share of the training to whose weights it goes back.
        epochs: of each training.
        lr: of each training.
        seed: of fresh weights and trainings.

    Raises:
        EvaluationError: a training diverged, or did not tell of the epoch to which weights are to go back.
    """
    space, task = factory.space, factory.task
    network = factory.candidate(space.full)
    reinitialise(network, seed=seed)
    early = _Early(network, rewound_to(rewind, epochs))
    more = {"teacher": factory.model} if task.needs_teacher else {}
    for number in range(1, rounds + 1):
        with nullcontext() if task.cuts_in_training else gradients_masked(network):  # see `train_and_score`
            task.train(network, epochs=epochs, seed=seed, lr=lr, watch=early if number == 1 else None, **more)
        keep_masks(network)
        if not early.reached:
            raise EvaluationError(
                f"protocol 'lottery' goes back to the weights after epoch {early.at}, and the training did not tell of "
                f"it: call callbacks.epoch in train_func, or set rewind to 0"
            )
        ranking = rank_channels(network, space, "magnitude", seed=seed)
        then = stage(factory.space, widths, number / rounds)
        early.network = Slicer(early.network, space, ranking)(then)
        network, (space, _) = copy_network(early.network), narrowed(space, ranking, then)
    return network


def stage(space: SearchSpace, widths: Widths, share: float) -> Widths:
    """The widths when this share of the rounds is over: the same share of what is left goes in each."""
    pairs = zip(widths, space.full, strict=True)
    return widths if share >= 1 else space.nearest([full * (width / full) ** share for width, full in pairs])


@final
class _Early(Watch):
    """Keeps a network as another one is after so many epochs; 0: as it is now."""

    def __init__(self, network: nn.Module, epoch: int) -> None:
        self._trained, self.at = network, epoch
        self.network, self.reached = copy_network(network), epoch <= 0

    def restore(self) -> State | None:
        return None

    def epoch(self, done: int, total: int, score: Callable[[], float] | None, state: Callable[[], State]) -> None:
        if done == self.at:
            self.reached = True
            self.network.load_state_dict(self._trained.state_dict())
