"""Weights and activations: Sun et al. 2024, Wanda, arXiv 2306.11695, equation 1, for channels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("readers", "inputs", members="readers", single=True)
def wanda(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) Σ |W_oj| ‖x_j‖₂ over all weights W_oj that read the channel, x_j being what each of them multiplies.

    The norm is that over examples and positions, here divided by the root of their number, so that it does not grow
    with the data. The paper compares single weights of one output; their sum over outputs is what a channel is worth.
    A density scores single weights as the paper does, and compares them so with `compare: output`.
    Unlabelled data, one pass for all groups.
    """
    assert evidence.inputs is not None  # it is asked for
    pairs = zip(evidence.readers, evidence.inputs, strict=True)
    return torch.stack([(rows.double().abs() * squares.sqrt()).sum(dim=1) for rows, squares in pairs]).sum(dim=0)
