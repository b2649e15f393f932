"""RigL: masks that move while a network trains: Evci et al. 2020, Rigging the Lottery, arXiv 1911.11134, section 3."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import nn

from autoprune.errors import ConfigError
from autoprune.space.cutting.masks import Masked, masks_of, of_units, units_of
from autoprune.training.terms.base import Term

_WHAT = "term 'rigl'"


@final
class RigL(Term):
    """Every few steps each layer drops the weights that are smallest and grows as many where the gradient is largest.

    The share of a layer's weights that moves is α / 2 · (1 + cos(π t / T_end)), t the share of the training that is
    over (equation 1's f_decay). Grown weights begin at 0, and so does what the optimizer gathers of them; those
    dropped and grown at once keep both. Each layer keeps its number of weights, so that the budget is kept. Blocks
    move as a whole, by the sums of their magnitudes.

    A network without masks (the base network) trains as without the term. As in the authors' code but for one thing:
    there a step that moves masks changes no weights, here the optimizer takes that step, too.

    Args:
        interval: ΔT, steps from one update to the next.
        share: α, of the weights that move at first.
        until: T_end, as a share of the training.

    Raises:
        ConfigError: a setting out of its range; an N:M pattern, which free growth would break.
    """

    def __init__(self, *, interval: int = 100, share: float = 0.3, until: float = 0.75) -> None:
        if not isinstance(interval, int) or isinstance(interval, bool) or interval < 1:
            raise ConfigError(f"{_WHAT}: interval must be a whole number of at least 1, got {interval!r}")
        for name, value in (("share", share), ("until", until)):
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
                raise ConfigError(f"{_WHAT}: {name} must be above 0 and at most 1, got {value!r}")
        self._interval, self._share, self._until, self._steps = interval, float(share), float(until), 0
        self._masks: list[Masked] = []

    def begin(self, model: nn.Module) -> None:
        """See `Term.begin`."""
        self._masks = masks_of(model)
        for masked in self._masks:
            if ":" in masked.density.pattern:
                raise ConfigError(
                    f"{_WHAT}: layer {masked.density.group!r} keeps {masked.density.pattern}, which weights that grow "
                    f"anywhere would break; leave the term out, or choose the pattern unstructured"
                )

    @torch.no_grad()
    def after_backward(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_backward`."""
        self._steps += 1
        if self._steps % self._interval or done >= self._until:
            return
        share = self._share / 2 * (1 + math.cos(math.pi * done / self._until))
        for masked in self._masks:
            if masked.weight.grad is not None:
                _move(masked, share)

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`."""
        return {"steps": self._steps, "masks": {masked.name: masked.mask for masked in self._masks}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        self._steps = state["steps"]
        for masked in self._masks:
            masked.mask.copy_(state["masks"][masked.name])


def _move(masked: Masked, share: float) -> None:
    """Drop and grow this share of the units that a layer keeps."""
    density, weight = masked.density, masked.weight
    assert weight.grad is not None
    before = units_of(density, masked.mask).any(dim=1)
    number = int(share * int(before.sum()))
    if not number:
        return
    small = units_of(density, weight.abs()).sum(dim=1).masked_fill(~before, math.inf)
    kept = before.clone()
    kept[small.topk(number, largest=False).indices] = False
    steep = units_of(density, weight.grad.abs()).sum(dim=1).masked_fill(kept, -math.inf)
    kept[steep.topk(number).indices] = True
    masked.mask.copy_(of_units(density, kept))
    weight.masked_fill_(~of_units(density, kept & before), 0.0)
