"""Neural Architecture Search without Training: Mellor et al. 2021, arXiv 2006.04647, equation 2."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from autoprune.data.batch import Batch
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
    (GELU, SiLU) are on where their input is above 0, which is where their output is. Of equal inputs, which have equal
    rows in any network, one counts. One forward pass; examples² operations per unit.

    Raises:
        EvaluationError: the network has none of them, or all inputs are equal.
    """
    examples, different = len(network.batch), _different(network.batch)
    if len(different) < 2:
        raise EvaluationError("naswot needs inputs that differ, and all examples of the batch are equal")
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
    return float(torch.linalg.slogdet(kernel[different][:, different]).logabsdet.clamp_min(-1e9))


def _different(batch: Batch) -> Tensor:
    """Positions of examples whose inputs are different, the first one of equal ones; all where sizes differ."""
    examples = len(batch)
    if batch.is_ragged:
        return torch.arange(examples)
    kinds = []
    for leaf in pytree.tree_leaves(batch.inputs):
        if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == examples:
            rows = (leaf.double() if leaf.is_floating_point() else leaf).reshape(examples, -1)
            kinds.append(np.unique(rows.cpu().numpy(), axis=0, return_inverse=True)[1].ravel())
    first: dict[tuple[int, ...], int] = {}
    for position, kind in enumerate(zip(*kinds, strict=True)):
        first.setdefault(kind, position)
    return torch.tensor(list(first.values()))
