"""Coresets of neurons: Mussay et al. 2020, Data-Independent Neural Pruning, arXiv 1907.04018, algorithm 2."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.importance.checks import check_choice
from autoprune.importance.evidence import GroupEvidence, criterion

Activation = Literal["relu", "sigmoid", "softplus"]

_FUNCTIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus,
}
"""φ: not below 0 and never falling, as the paper's bound demands."""


@criterion("weights", "readers", members="readers")
def coreset(
    evidence: GroupEvidence,
    rng: np.random.Generator,
    *,
    activation: Activation = "relu",
    beta: float = 1.0,
    sampled: bool = False,
) -> Tensor:
    """(width,) max over i of w_i(p) φ(β‖p‖) / Σ_q w_i(q) φ(β‖q‖): how likely a channel is drawn into the coreset.

    p is all that writes the channel, biases included, w_i what one output reads of it: the share that it can have at
    most of any output, over all inputs of norm β. Weights below 0 are a set of their own, as in the paper, and so is
    each place of a kernel. Where batch norms scale a channel, ‖p‖ is the norm of their scales: a filter of any size
    leaves them with unit variance. The paper draws channels with these probabilities and raises the weights that read
    them; here those are the business of `inherit`.

    No data, no passes.

    Args:
        evidence: of the group.
        rng: draws, where `sampled`.
        activation: φ: relu, sigmoid or softplus.
        beta: β; it changes nothing with relu.
        sampled: rank channels in the order in which they are first drawn, as in the paper; false: by probability.

    Raises:
        ConfigError: an `activation` that there is not, or a `beta` that is not above 0.
    """
    check_choice("activation", activation, Activation)
    if not (math.isfinite(beta) and beta > 0):
        raise ConfigError(f"beta must be a finite number above 0, got {beta!r}")
    norms = _joined(evidence.norm_scales or evidence.filters)
    reach = _FUNCTIONS[activation](beta * norms)
    weights = torch.cat([rows.double() for rows in evidence.readers] or [torch.ones_like(norms)[:, None]], dim=1)
    parts = torch.cat([weights.clamp(min=0), (-weights).clamp(min=0)], dim=1) * reach[:, None]
    shares = (parts / parts.sum(dim=0).clamp(min=torch.finfo(torch.float64).tiny)).amax(dim=1)
    return _order_of_draws(shares, rng) if sampled else shares


def _joined(members: tuple[Tensor, ...]) -> Tensor:
    """(width,) L2 norms over all of them."""
    return torch.stack([m.double().reshape(len(m), -1).square().sum(dim=1) for m in members]).sum(dim=0).sqrt()


def _order_of_draws(shares: Tensor, rng: np.random.Generator) -> Tensor:
    """(width,) 1 for the channel that is drawn first, falling to 1 / width; 0 where a channel cannot be drawn.

    Exponential clocks of these rates ring in the order in which independent draws first meet the channels.
    """
    clocks = torch.from_numpy(rng.standard_exponential(len(shares))).to(shares) / shares
    place = clocks.argsort().argsort().to(shares)
    return torch.where(shares > 0, 1 - place / len(shares), 0.0)
