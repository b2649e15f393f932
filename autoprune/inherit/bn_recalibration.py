"""Batch norm recalibration: the full network's statistics do not fit a cut one. EagleEye, Li et al. ECCV 2020."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def recalibrate_batch_norm(model: nn.Module, inputs: Sequence[Tensor], *, device: torch.device) -> None:
    """Re-estimate the running statistics of all batch norms in place; nothing happens without norms or inputs.

    The new mean and variance are the plain averages of those of the batches (unbiased variances, as torch keeps
    them), each layer seeing what the layers below give when they normalise by the batch. The paper's code averages
    exponentially with momentum 0.1; the plain average does not depend on the order of the batches. Only batch norms
    run in training mode; all training flags and momenta are as before afterwards.

    Args:
        model: moved to `device`.
        inputs: training batches (N, *input_shape); more than one value per channel each.
        device: where to run.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms or not inputs:
        return
    flags = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    model.to(device).eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's sign for the cumulative average
            norm.train()
        with torch.no_grad():
            for batch in inputs:
                model(batch.to(device))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, flag in flags:
            module.training = flag
