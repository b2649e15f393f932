"""Approximated oracle filter pruning: Ding et al. ICML 2019, arXiv 1905.04748."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.sparsity.base import SparsityTraining, Subject, check_number
from autoprune.sparsity.reading import reader_outputs

_BATCHES = 8


@final
class ApproximatedOracle(SparsityTraining):
    """While the network trains, random halves of a group's channels are closed, and the damage to its readers is noted.

    The damage of a mask is ‖O' - O‖² / ‖O‖² over what the reading layers give (equation 4); a channel scores the mean
    damage of the masks that closed it. Once each candidate was closed so often, the half with the lower scores goes on
    as candidates (the binary filter search, section 3.3), until one is left; a channel's score is that of the last
    round that it was in, so that damages compare between groups. A group whose search has ended begins anew.
    Departure: the paper cuts filters on the way; here one threshold meets the budget at the end.

    Args:
        every: steps of the training between two masks.
        trials: how often each candidate is closed in a round.
    """

    def __init__(self, *, every: int = 1, trials: int = 4) -> None:
        check_number("aofp", "every", every, least=1, whole=True)
        check_number("aofp", "trials", trials, least=1, whole=True)
        self._every, self._trials = every, trials

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        self.subject, channels = subject, subject.channels
        self._batches = subject.batches(_BATCHES)
        self._parts = [part for part in channels.parts if not bool(channels.without_reader[part].all())]
        if not self._batches or not self._parts:
            raise ConfigError("sparsity training 'aofp' closes channels that weights read, on examples: there are none")
        self._steps = self._probes = 0
        device = channels.slots.device
        self._sums, self._counts = (torch.zeros(channels.number, device=device) for _ in range(2))
        self._scores, self._running = (torch.full_like(self._sums, torch.nan) for _ in range(2))
        self._candidates = torch.ones(channels.number, dtype=torch.bool, device=device)
        return subject.network

    def after_step(self, model: nn.Module, *, done: float) -> None:
        """Close channels of the next group, see what that does, and go on with the search."""
        self._steps += 1
        if self._steps % self._every:
            return
        part = self._parts[self._probes % len(self._parts)]
        batch = self._batches[self._probes // len(self._parts) % len(self._batches)]
        self._probes += 1
        inside = self._candidates[part].nonzero().flatten() + part.start
        closed = inside[torch.randperm(len(inside))[: max(1, len(inside) // 2)].to(inside.device)]
        factors = torch.ones_like(self._sums).index_fill(0, closed, 0.0)
        whole = reader_outputs(model, self.subject.channels, batch, part)
        masked = reader_outputs(model, self.subject.channels, batch, part, factors)
        self._sums[closed] += damage(whole, masked)
        self._counts[closed] += 1
        self._search(part, inside)

    def _search(self, part: slice, inside: Tensor) -> None:
        """Note the damage so far; where the round is over, the next one begins, or the search anew."""
        means = self._sums[inside] / self._counts[inside].clamp(min=1)
        seen = self._counts[inside] > 0
        self._running[inside[seen]] = means[seen]
        if bool((self._counts[inside] < self._trials).any()):
            return
        fewer = inside[means.argsort(stable=True)[: len(inside) // 2]]
        self._candidates[part] = len(fewer) == 0
        self._candidates[fewer] = True
        if not len(fewer):
            self._scores[part] = self._running[part]
        self._sums[part] = 0
        self._counts[part] = 0

    def scores(self, model: nn.Module) -> Tensor:
        """Those of the last search that has ended, else of the one that goes on; channels never closed stay."""
        found = torch.where(self._scores.isnan(), self._running, self._scores)
        return found.nan_to_num(nan=1.0 + float(found.nan_to_num(nan=0.0).max()))

    def passes(self, epochs: int) -> float:
        """The training, and two forward passes of a batch for each mask, each a third of one of training."""
        subject: Subject | None = getattr(self, "subject", None)
        if subject is None:
            return float(epochs)
        return epochs + self._probes * 2 / 3 * subject.recipe.batch_size / subject.examples

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`."""
        names = ("_steps", "_probes", "_scores", "_running", "_sums", "_counts", "_candidates")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        device = self._scores.device
        for name, value in state.items():
            setattr(self, name, value.to(device) if isinstance(value, Tensor) else value)


def damage(whole: list[Tensor], masked: list[Tensor]) -> float:
    """Σ ‖O' - O‖² / Σ ‖O‖² over the readers."""
    lost = sum(float((one - other).double().square().sum()) for one, other in zip(whole, masked, strict=True))
    return lost / max(1e-12, sum(float(one.double().square().sum()) for one in whole))
