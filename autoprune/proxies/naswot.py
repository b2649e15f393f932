"""Neural Architecture Search without Training: Mellor et al. 2021, arXiv 2006.04647, equation 2."""

from __future__ import annotations

import torch
from torch import Tensor

from autoprune.errors import EvaluationError
from autoprune.proxies.base import ProxyNetwork, proxy, watching

_RECTIFIERS = frozenset(
    name + end
    for name in ("relu", "relu6", "hardtanh", "leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "silu", "hardswish")
    for end in ("", "_")
)


@proxy("inputs")
def naswot(network: ProxyNetwork) -> float:
    """The logarithm of |det K|, K_ij the number of units that are on, or off, for both examples i and j of one batch.

    A unit is a value that a rectifier gives, on where that is above 0. The paper's K is of ReLU alone; smooth ones
    (GELU, SiLU) are on where their input is above 0, which is where their output is. One forward pass; examples²
    operations per unit.

    Raises:
        EvaluationError: the network has none of them.
    """
    examples = len(network.batch)
    kernel = torch.zeros(examples, examples, dtype=torch.float64)

    def count(name: str, inputs: object, outputs: Tensor) -> None:
        if len(outputs) == examples:
            on = (outputs > 0).flatten(1).float()
            off = 1 - on
            kernel.add_((on @ on.mT + off @ off.mT).double().cpu())

    with torch.no_grad(), watching(_RECTIFIERS, count):
        network.batch.outputs(network.model)
    if not kernel.any():
        raise EvaluationError("naswot needs units that are on or off (ReLU, GELU, SiLU, …), and the network has none")
    return float(torch.linalg.slogdet(kernel).logabsdet.clamp_min(-1e9))
