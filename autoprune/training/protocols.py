"""Protocols: how final networks are trained. Liu et al. ICLR 2019, Rethinking the Value of Network Pruning, sec. 3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from autoprune.randomness import seeded

_LONGEST = 2.0  # section 3: Scratch-B at most doubles the epochs


@final
@dataclass(frozen=True, slots=True)
class Protocol:
    """How a final network is trained.

    Attributes:
        inherits: whether it starts from the weights of the full network, or from fresh ones (see `reinitialise`).
        epochs: (epochs of the base network, epochs set for fine-tuning, FLOPs of base / pruned) -> epochs.
        lr: learning rate of the base network -> learning rate.
    """

    inherits: bool
    epochs: Callable[[int, int, float], int]
    lr: Callable[[float], float]


def _same(lr: float) -> float:
    return lr


def _lower(lr: float) -> float:
    """A tenth; the paper's hundredth favours scratch (Wang et al. 2023, Why is the State of Pruning so Confusing)."""
    return 0.1 * lr


def _fine_tune_epochs(base: int, fine_tune: int, flops_ratio: float) -> int:
    return fine_tune


def _base_epochs(base: int, fine_tune: int, flops_ratio: float) -> int:
    return base


def _equal_budget_epochs(base: int, fine_tune: int, flops_ratio: float) -> int:
    return int(base * min(max(flops_ratio, 1.0), _LONGEST))


FINE_TUNE = Protocol(inherits=True, epochs=_fine_tune_epochs, lr=_lower)
SCRATCH_E = Protocol(inherits=False, epochs=_base_epochs, lr=_same)
SCRATCH_B = Protocol(inherits=False, epochs=_equal_budget_epochs, lr=_same)


def reinitialise(model: nn.Module, *, seed: int) -> None:
    """Give `model` fresh weights in place, the same for the same seed; the global random state stays as it was.

    Modules with `reset_parameters` are asked to, inner ones first, so that a network that defines it has the last word
    on its own initialisation. Parameters held by other modules stay if they are constant, and are else drawn from
    a normal distribution with their own mean and standard deviation.
    """
    with seeded(seed), torch.no_grad():
        for module in reversed(list(model.modules())):
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for parameter in module.parameters(recurse=False):
                if parameter.numel() and parameter.min() < parameter.max():
                    parameter.normal_(parameter.mean().item(), parameter.std().item())
