"""A random order of channels: the control that every criterion must beat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.members import GroupTensors


def random_order(tensors: GroupTensors, rng: np.random.Generator) -> Tensor:
    """(width,) independent uniform numbers."""
    return torch.from_numpy(rng.random(tensors.width))
