"""Running a network only to look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.data.batch import examples_in
from autoprune.randomness import seeded


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode, without gradients, and the global generators start anew."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with seeded(0), torch.no_grad():
            yield
    finally:
        for module, flag in flags:
            module.training = flag


def examples_of(inputs: Any) -> int:
    """How many examples a batch has."""
    return examples_in(inputs) or 1


def all_finite(values: Any) -> bool:
    """Whether no number in it is infinite or not a number."""
    tensors = (t for t in pytree.tree_leaves(values) if isinstance(t, Tensor) and t.is_floating_point())
    return all(bool(t.isfinite().all()) for t in tensors)
