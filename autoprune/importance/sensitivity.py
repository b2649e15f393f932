"""How far the outputs move when a channel is disturbed: Engelbrecht 2001, IEEE Trans. on Neural Networks 12(6).

With flips in place of changes it is the probability of an inverted output of Madalines: Stevenson, Winter & Widrow
1990, Sensitivity of feedforward neural networks to weight errors, IEEE Transactions on Neural Networks 1(1).
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.importance.checks import check_choice
from autoprune.importance.evidence import criterion
from autoprune.importance.examples import floating
from autoprune.importance.network import NetworkEvidence
from autoprune.training.objectives.logits import LogitLayout

Counts: TypeAlias = Literal["change", "flips"]


@criterion("outputs")
def sensitivity(
    network: NetworkEvidence,
    rng: np.random.Generator,
    *,
    perturbation: float = 1.0,
    counts: Counts = "change",
    examples: int | None = 256,
) -> Tensor:
    """(channels,) mean over examples of ‖f(x; gate = 1 - p) - f(x)‖² / p², or the share of predictions that it flips.

    f are the network's outputs, all floating ones of them; the gate multiplies what all readers of the channel get, so
    p = 1 removes the channel and a small p gives the squared derivative. Unlabelled data. One forward pass over the
    examples for each channel and one more, small batches being repeated so that several channels share a pass.

    Args:
        network: the network.
        rng: not used.
        perturbation: p.
        counts: "change", or "flips": where the largest class of the first output is another one; classes lie along axis
            1 of (N, C) and of maps (N, C, H, W), and along the last one of tokens (N, T, C).
        examples: how many examples to use at most; None: all.

    Raises:
        ConfigError: a setting out of range, or flips of outputs without classes.
        EvaluationError: channels whose readers cannot be seen.
    """
    check_choice("counts", counts, Counts)
    if not math.isfinite(perturbation) or perturbation == 0:
        raise ConfigError(f"perturbation must be a number other than 0, got {perturbation}")
    batches = network.examples(examples)
    total = torch.zeros(network.channels, dtype=torch.float64)
    for batch in batches:
        with torch.no_grad():
            plain = floating(network.run(batch))
        for channels in network.in_turn():
            gates = network.closed(channels, to=1 - perturbation)
            for channel, outputs in zip(channels.tolist(), network.gated(batch, gates), strict=True):
                found = floating(outputs)
                if counts == "flips":
                    total[channel] += _flips(found, plain) * batch.number
                else:
                    pairs = zip(found, plain, strict=True)
                    total[channel] += sum(float((a.double() - b.double()).square().sum()) for a, b in pairs)
    scale = 1.0 if counts == "flips" else perturbation**2
    return total / (scale * sum(batch.number for batch in batches))


def _flips(found: list[Tensor], plain: list[Tensor]) -> float:
    """Share of predictions that differ."""
    if not plain or plain[0].ndim < 2:
        raise ConfigError("flips need outputs with classes, as classifiers give: set counts to 'change'")
    axis = LogitLayout.of(plain[0], None).axis
    return float((found[0].argmax(dim=axis) != plain[0].argmax(dim=axis)).double().mean())
