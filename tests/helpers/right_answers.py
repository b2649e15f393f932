"""The accuracy of a classifier, by nothing but torch."""

from __future__ import annotations

import torch
from torch import nn

from autoprune.data.base import Split


def share_right(model: nn.Module, split: Split) -> float:
    """Share of examples whose highest output is that of their class, in percent."""
    right: list[bool] = []
    with torch.no_grad():
        for inputs, targets in split.batches(100):
            right += (model.eval()(inputs).argmax(1) == targets).tolist()
    return 100.0 * sum(right) / len(right)
