"""Building blocks for small networks, one habit of model code each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Named layers, parameters and buffers, and a forward function over them."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Module | nn.Parameter):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)
        self._function = forward

    def forward(self, *inputs: Any) -> Any:
        return self._function(self, *inputs)


def conv(before: int, after: int, kernel: int = 3, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, padding=kernel // 2, **settings)


def classify(net: Any, x: Tensor) -> Tensor:
    """Average over positions, then the layer `fc`."""
    return net.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def image() -> Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
