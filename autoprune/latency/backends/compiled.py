"""`torch.compile` with freezing: weights are constants, norms are folded, kernels fused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import nn

from autoprune.cost.latency.device_profile import Conditions
from autoprune.cost.latency.kernels import FUSED, DeviceKernel
from autoprune.errors import EvaluationError
from autoprune.latency.backends.base import Backend, Runner
from autoprune.latency.backends.eager import Eager


@final
class Compiled(Backend):
    """Compiles every network anew, which takes seconds to a minute each.

    Kernels are timed as eager PyTorch runs them: compiling each at a grid of sizes would take hours. How compiled
    networks differ from that is left to the fit on whole networks.
    """

    def ready(
        self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], conditions: Conditions
    ) -> Runner:
        """The compiled network.

        Raises:
            EvaluationError: it cannot be compiled, for example for want of a C++ compiler.
        """
        import torch._inductor.config as inductor

        try:
            with torch.no_grad(), inductor.patch(freezing=True):
                # an exported network has code of its own: compiled variants of one class would slow each other's guards
                exported = torch.export.export(network, args, kwargs).module()
                compiled = torch.compile(exported, dynamic=False)
                compiled(*args, **kwargs)
        except Exception as error:
            raise EvaluationError(
                f"torch.compile fails on this {type(network).__name__} ({type(error).__name__}: "
                f"{str(error).strip().partition(chr(10))[0]}); it needs a C++ compiler. Use the backend torch, or "
                f"onnxruntime"
            ) from error
        return lambda: compiled(*args, **kwargs)

    def kernel(self, kernel: DeviceKernel, shapes: Sequence[tuple[int, ...]], conditions: Conditions) -> Runner | None:
        """As eager PyTorch runs it; None for what is fused into another kernel."""
        if kernel.operator.rstrip("_") in FUSED:
            return None
        return Eager().kernel(kernel, shapes, conditions)
