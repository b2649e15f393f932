"""Channel independence: Sui et al. 2021, CHIP, arXiv 2110.13981, equation 4."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("maps", members="maps")
def chip(evidence: GroupEvidence, rng: np.random.Generator, *, examples: int = 16) -> Tensor:
    """(width,) mean over examples of ‖A‖* - ‖A without row i‖*, and over the calls that read the channels.

    A is the (channels, positions) matrix of what a reader gets for one example, ‖·‖* its nuclear norm: a channel that
    others span adds little to it. Unlabelled data, one pass for all groups; at most 64 examples are kept (the paper
    takes 640), fewer where their maps would fill more than 128 MB. Each example costs `width` eigenvalue problems of
    size min(channels, positions).

    Args:
        evidence: of the group.
        rng: not used.
        examples: how many of those are looked at.

    Raises:
        ConfigError: `examples` is below 1.
    """
    if examples < 1:
        raise ConfigError(f"examples must be at least 1, got {examples}")
    assert evidence.maps is not None  # it is asked for
    total = torch.zeros(evidence.width, dtype=torch.float64, device=evidence.maps[0].device)
    for maps in evidence.maps:
        some = maps[:, :examples].flatten(2).movedim(1, 0)
        total += torch.stack([_losses(example.double()) for example in some]).mean(dim=0)
    return total.clamp(min=0) / len(evidence.maps)


def _losses(rows: Tensor) -> Tensor:
    """(channels,) what the nuclear norm loses without each row; from the smaller one of the two Gram matrices."""
    channels, positions = rows.shape
    gram = rows.T @ rows if positions < channels else rows @ rows.T
    if positions < channels:
        return _nuclear(gram) - torch.stack([_nuclear(gram - torch.outer(row, row)) for row in rows])
    without = []
    for row in range(channels):
        left = gram.clone()
        left[row], left[:, row] = 0.0, 0.0
        without.append(_nuclear(left))
    return _nuclear(gram) - torch.stack(without)


def _nuclear(gram: Tensor) -> Tensor:
    roots: Tensor = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    return roots.sum()
