"""Small networks, one habit of model code each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Forward = Callable[["Net", Tensor], Any]


class Net(nn.Module):
    """Named layers and a forward function over them."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module | Tensor) -> None:
        super().__init__()
        for name, layer in layers.items():
            if isinstance(layer, nn.Module | nn.Parameter):
                setattr(self, name, layer)
            else:
                self.register_buffer(name, layer)
        self._function = forward

    def forward(self, *inputs: Any) -> Any:
        return self._function(self, *inputs)


def conv(before: int, after: int, kernel: int = 3, **settings: Any) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, padding=kernel // 2, **settings)


def head(net: Net, x: Tensor) -> Tensor:
    return net.fc(x.mean((2, 3)))  # type: ignore[no-any-return, operator]


IMAGE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
