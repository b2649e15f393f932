"""Losses that a forward pass adds to the one that its outputs go into: of other networks on the same inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_ASKED: ContextVar[list[Tensor] | None] = ContextVar("losses beside", default=None)


@contextmanager
def losses_beside() -> Iterator[list[Tensor]]:
    """Inside, what passes add comes to the list that is given, and is weighed and scaled by whoever asked for it."""
    asked = list[Tensor]()
    token = _ASKED.set(asked)
    try:
        yield asked
    finally:
        _ASKED.reset(token)


def with_loss(outputs: Any, loss: Tensor) -> Any:
    """The outputs, with a loss for whoever asks; where nobody does, who differentiates them differentiates it, too.

    A training function of the user's own does not ask: then the loss counts as it is, however its own is scaled.
    """
    asked = _ASKED.get()
    if asked is not None:
        asked.append(loss)
        return outputs
    leaves, structure = pytree.tree_flatten(outputs)
    place = next((i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad), None)
    if place is not None:
        leaves[place] = _Beside.apply(leaves[place], loss)  # type: ignore[no-untyped-call]
    return pytree.tree_unflatten(leaves, structure)


@final
class _Beside(torch.autograd.Function):
    """Passes its first input on, and gives the second the gradient 1."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, loss: Tensor) -> Tensor:
        ctx.save_for_backward(loss)
        return outputs.view_as(outputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (loss,) = ctx.saved_tensors
        return gradient, torch.ones_like(loss)
