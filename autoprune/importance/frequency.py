"""Frequency bands of kernels: Liu et al. 2018, Frequency-Domain Dynamic Pruning for CNNs, NeurIPS, section 3."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.special import betainc
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("weights", members="filters")
def frequency(evidence: GroupEvidence, rng: np.random.Generator, *, a: float = 1.0, b: float = 1.0) -> Tensor:
    """(width,) Σ (1 - I_{f/F}(a, b)) |c| over the coefficients c of the discrete cosine transform of all kernels.

    f = u + v is the band of a coefficient, F how many bands a kernel has, I the distribution function of Beta(a, b):
    kernels are smooth, so what lies in low bands carries more. The paper leaves out single coefficients, a share of
    each band that this distribution gives, and trains what stays in the frequency domain; of a channel all go, so here
    that share is what a band counts less. Biases, matrices and kernels of one weight have one band, and count as in
    `l1`. The transform is orthonormal (DCT-II).

    No data, no passes.

    Args:
        evidence: of the group.
        rng: not used.
        a: above 0; larger ones spare more of the low bands.
        b: above 0; larger ones leave less to the middle bands.

    Raises:
        ConfigError: `a` or `b` is not a finite number above 0.
    """
    for name, given in (("a", a), ("b", b)):
        if not (math.isfinite(given) and given > 0):
            raise ConfigError(f"{name} must be a finite number above 0, got {given!r}")
    kernels = evidence.kernels or ((),) * len(evidence.filters)
    total = torch.zeros(evidence.width, dtype=torch.float64, device=evidence.filters[0].device)
    for rows, kernel in zip(evidence.filters, kernels, strict=True):
        found = cosine_transform(rows.double().reshape(evidence.width, -1, *kernel), dims=len(kernel))
        bands = sum(np.ix_(*(np.arange(size) for size in kernel)), np.zeros([1] * len(kernel)))
        share = torch.from_numpy(np.asarray(1 - betainc(a, b, bands / (sum(kernel) - len(kernel) + 1)))).to(found)
        total += (found.abs() * share).reshape(evidence.width, -1).sum(dim=1)
    return total


def cosine_transform(values: Tensor, *, dims: int) -> Tensor:
    """The orthonormal DCT-II along the last `dims` axes."""
    for dim in range(values.ndim - dims, values.ndim):
        size = values.shape[dim]
        place = torch.arange(size).to(values)
        basis = torch.cos(math.pi / size * (place + 0.5) * place[:, None]) * math.sqrt(2 / size)
        basis[0] /= math.sqrt(2)
        values = torch.tensordot(values, basis, dims=([dim], [1])).movedim(-1, dim)
    return values
