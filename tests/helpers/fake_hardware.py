"""A machine whose times are known: a backend that runs nothing, and a clock that reads what it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import pytest
import torch
from torch import nn

from autoprune.cost.latency.device_profile import Conditions
from autoprune.cost.latency.kernels import DeviceKernel
from autoprune.latency import kernel_times, measure, profile
from autoprune.latency.backends.base import Backend, Runner


@final
class KnownTimes(Backend):
    """Convolutions and linear layers take a microsecond for each thousand weights, with a jump at 20 channels.

    All else takes ten nanoseconds. A network takes the sum of its layers, half as long again, and 0.05 ms.
    """

    def ready(
        self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], conditions: Conditions
    ) -> Runner:
        weights = [m.weight.shape for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        ms = 0.05 + 1.5 * sum(layer_ms(shape) for shape in weights)
        return lambda: ms

    def kernel(self, kernel: DeviceKernel, shapes: Sequence[tuple[int, ...]], conditions: Conditions) -> Runner | None:
        if kernel.kind not in ("convolution", "product"):
            return lambda: 1e-5
        return lambda: layer_ms(shapes[1])


def layer_ms(weight: Sequence[int]) -> float:
    """What a layer with a weight of this shape takes."""
    jump = 0.02 if weight[1] > 20 else 0.0
    return 1e-6 * torch.Size(weight).numel() + jump


@pytest.fixture
def known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is measured on this machine."""

    def clock(run: Callable[[], float], times: int, conditions: Conditions) -> float:
        return float(run() or 0.0)

    for module in (measure, kernel_times):
        monkeypatch.setattr(module, "clock", clock)
    for module in (measure, profile):
        monkeypatch.setattr(module, "make_backend", lambda conditions: KnownTimes())
