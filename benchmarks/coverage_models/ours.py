"""autoprune on one model: trace, verify, and what of it can be pruned."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import Any

from torch import nn

from autoprune.errors import AutopruneError
from autoprune.space.groups import SearchSpace
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from coverage_models.catalogue import Example

NAME = "autoprune"
PRELOAD = ("autoprune",)


def measure(model: nn.Module, example: Example) -> dict[str, Any]:
    """Trace and verify; a refusal (an AutopruneError) is a result, any other error is a crash and not caught here."""
    started = time.process_time()
    try:
        traced = trace(model, example)
        found = {"export_seconds": traced.export_seconds, "label_seconds": traced.label_seconds}
        verified = verify(model, traced)
    except AutopruneError as error:
        return {"status": "refused", "problem": f"{type(error).__name__}: {error}"}
    seconds = time.process_time() - started - traced.export_seconds - traced.label_seconds
    return {
        "status": "verified",
        **found,
        "verify_seconds": seconds,
        "tracer": traced.program.tracer,
        "largest_error": verified.largest_error,
        **describe(verified.space),
    }


def describe(space: SearchSpace) -> dict[str, Any]:
    """Groups, prunable shares and frozen parts of a space."""
    reasons: Counter[str] = Counter()
    for part in space.frozen:
        reasons[part.reason] += part.channels
    return {
        "form": space.form,
        "why_graph": space.why_graph,
        "smallest": smallest(space),
        "groups": len(space.groups),
        "flops_share": flops_share(space),
        "params_share": params_share(space),
        "frozen": len(space.frozen),
        "frozen_channels": dict(reasons.most_common(4)),
    }


def flops_share(space: SearchSpace) -> float:
    """Share of all multiply-adds that lie in operations of which a dimension can be cut."""
    every = [(op, op.coefficient * math.prod(size(space.full) for size in op.sizes)) for op in space.operations]
    return sum(flops for op, flops in every if any(s.terms for s in op.sizes)) / max(
        1, sum(flops for _, flops in every)
    )


def smallest(space: SearchSpace) -> float:
    """Share of the FLOPs that is left at the smallest widths."""
    small, full = (
        sum(op.coefficient * math.prod(size(widths) for size in op.sizes) for op in space.operations)
        for widths in (space.smallest, space.full)
    )
    return small / max(1, full)


def params_share(space: SearchSpace) -> float:
    """Share of all parameters that lie in tensors of which an axis can be cut."""
    every = [(tensor, math.prod(tensor.shape)) for tensor in space.tensors if tensor.kind == "parameter"]
    cut = [n for tensor, n in every if any(axis is not None and (axis.group >= 0).any() for axis in tensor.axes)]
    return sum(cut) / max(1, sum(n for _, n in every))
