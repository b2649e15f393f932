"""FLOPs of widths that are no whole numbers, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.cost.flops import flops
from autoprune.space.groups import SearchSpace
from autoprune.space.sizes import AffineSize


@final
class SoftFlops:
    """The closed form of `cost/flops.py` for tensors: one multiply-add is one FLOP.

    Args:
        space: of the network.
        network: tells the device.
    """

    def __init__(self, space: SearchSpace, network: nn.Module) -> None:
        first = next(network.parameters(), None)
        self._device = torch.device("cpu") if first is None else first.device
        self._operations = [(float(one.coefficient), one.sizes) for one in space.operations]
        self.full = float(flops(space)(np.array([space.full]))[0])

    def share(self, widths: Sequence[Tensor | float]) -> Tensor:
        """FLOPs at these widths, one for each group, as a share of the full network's."""
        total = torch.zeros((), device=self._device)
        for coefficient, sizes in self._operations:
            product: Tensor | float = coefficient / self.full
            for size in sizes:
                product = product * _size(size, widths)
            total = total + product
        return total


def _size(size: AffineSize, widths: Sequence[Tensor | float]) -> Tensor | float:
    value: Tensor | float = float(size.constant)
    for group, slope in size.terms:
        value = value + slope * widths[group]
    return value
