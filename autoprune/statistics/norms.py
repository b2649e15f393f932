"""Norms with running statistics, as functions of torch are called for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch.nn.functional as F

_NAMES = ("batch_norm", "instance_norm")
_FUNCTION = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
_OPERATOR = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")


@final
@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """A batch norm that a consumer's output goes straight, and only, into; names in the network.

    Attributes:
        mean: of its running mean.
        variance: of its running variance.
        weight: of its scale; None where it has none.
        bias: of its shift; None where it has none.
        eps: added to the variance.
    """

    mean: str
    variance: str
    weight: str | None
    bias: str | None
    eps: float


def norm_arguments(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments of a call of a batch or instance norm, by name; None for any other function.

    Its "training" says whether it takes the statistics of the batch, which both kinds do where there are no others.
    """
    name = getattr(func, "__name__", "").partition(".")[0]
    if name not in _NAMES:
        return None
    order = _FUNCTION if func in (F.batch_norm, F.instance_norm) else _OPERATOR
    given = {**dict(zip(order, args, strict=False)), **kwargs}
    by_batch = given.get("training", given.get("use_input_stats", name == "instance_norm"))
    return {**given, "training": by_batch or given.get("running_mean") is None or given.get("running_var") is None}
