"""Error of leaving a channel out, the others refitted: Hassibi & Stork 1992, Optimal Brain Surgeon, for channels.

Layer by layer as in Dong et al. 2017, L-OBS, arXiv 1705.07565: the Hessian of a layer's squared error is the second
moment of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.importance.evidence import GroupEvidence, InputMoments, criterion


@criterion("moments", members="moments", single=True)
def obs(
    evidence: GroupEvidence, rng: np.random.Generator, *, constant: bool = True, ridge: float | None = None
) -> Tensor:
    """(width,) Σ_o W_oj ([Σ⁻¹]_jj)⁻¹ W_ojᵀ over all weights that read the channel.

    Σ is the second moment of what such a weight reads, j all elements of channel j (its kernel, its positions in a
    flattened map): it is the least mean squared error of the outputs that a fit of all other inputs leaves, what
    `inherit: [least_squares]` pays for this channel alone. In a grouped convolution each group is fitted by itself.

    Of a single weight it is w² / [Σ⁻¹]_jj, SparseGPT's score (Frantar & Alistarh 2023, arXiv 2301.00774, equation 3).

    Unlabelled data, two passes for all groups; at most 32 sampled positions of each example. Then one inverse for each
    reader, of size channels × kernel.

    Args:
        evidence: of the group.
        rng: not used.
        constant: whether the fit has a constant (a bias, or a norm that is recalibrated), so that Σ is a covariance.
        ridge: added to the diagonal of Σ, as a share of its mean; None: elements of u / values of u that were seen, as
            `least_squares` does, as if as many more independent inputs had been seen as there are elements.

    Raises:
        ConfigError: `ridge` is not above 0.
    """
    if ridge is not None and not ridge > 0:
        raise ConfigError(f"ridge must be above 0, got {ridge}")
    assert evidence.moments is not None  # it is asked for
    if evidence.spread is not None:
        return _single(evidence, evidence.spread, constant, ridge)
    total = torch.zeros(evidence.width, dtype=torch.float64, device=evidence.moments[0].second.device)
    for reader in evidence.moments:
        share = _share(reader, ridge)
        inverses = reader.inverse(centred=constant, share=share)
        for weight, inverse, channel in zip(reader.weight, inverses, reader.channel, strict=True):
            if not bool(inverse.any()):
                continue
            for number in channel.unique().tolist():
                if number >= 0:
                    own = channel == number
                    part = weight[:, own]
                    total[number] += (part * torch.linalg.solve(inverse[own][:, own], part.T).T).sum()
    return total.clamp(min=0)


def _share(reader: InputMoments, ridge: float | None) -> float:
    return max(reader.second.shape[2] / reader.count, 1e-12) if ridge is None else ridge


def _single(evidence: GroupEvidence, spread: Callable[[Tensor], Tensor], constant: bool, ridge: float | None) -> Tensor:
    """(width,) of single weights, or blocks of them, whose weights count one by one."""
    assert evidence.moments is not None
    (reader,) = evidence.moments
    inverse = reader.inverse(centred=constant, share=_share(reader, ridge))
    alone = spread(inverse.diagonal(dim1=1, dim2=2))
    (weights,) = evidence.filters
    return torch.where(alone > 0, weights.double().square() / alone, 0.0).sum(dim=1)
