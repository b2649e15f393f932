"""What channels contribute to the outputs of the weights that read them, from second moments of the inputs.

Channel j contributes x_oj = Σ_k W_ojk u_jk to output o, k over kernel positions. So the mean over examples and
positions of Σ_o x_oi x_oj is Σ (WᵀW ∘ E[u uᵀ]) over the elements of channels i and j: no contribution is ever formed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from autoprune.importance.evidence import InputMoments


def contribution_gram(moments: Sequence[InputMoments], width: int, *, centred: bool = False) -> Tensor:
    """(width, width) G_ij = Σ over readers and their outputs o of E[x_oi x_oj], float64; covariances where centred."""
    total = torch.zeros(width, width, dtype=torch.float64, device=moments[0].second.device)
    for reader in moments:
        second = reader.centred if centred else reader.second
        for weight, of_group, channel in zip(reader.weight, second, reader.channel, strict=True):
            inside = channel >= 0
            own = channel[inside]
            products = (weight[:, inside].T @ weight[:, inside]) * of_group[inside][:, inside]
            by_row = torch.zeros(width, len(own), dtype=torch.float64, device=total.device).index_add_(0, own, products)
            total.index_add_(1, own, by_row)
    return (total + total.T) / 2


def weight_norms(moments: Sequence[InputMoments], width: int) -> Tensor:
    """(width,) Euclidean norm of all weights that read each channel."""
    total = torch.zeros(width, dtype=torch.float64, device=moments[0].second.device)
    for reader in moments:
        for weight, channel in zip(reader.weight, reader.channel, strict=True):
            inside = channel >= 0
            total.index_add_(0, channel[inside], weight[:, inside].square().sum(dim=0))
    return total.sqrt()
