"""The closed-form FLOPs of a space held against fvcore, which counts the network that was really built.

fvcore runs `torch.jit.trace`; where that fails, torch's own counter stands in.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.tracing.program import Example, call_arguments, run_model

COUNTED = ("conv", "linear", "addmm", "matmul", "bmm")
"""fvcore's operators that the closed form is held against."""


def multiply_adds(space: SearchSpace, widths: Widths) -> int:
    """Sum of all matrix products that fvcore can see, at one width vector, in plain integers."""
    seen = (op for op in space.operations if op.kind not in ("unseen", "uncounted"))
    return sum(op.coefficient * math.prod(size(widths) for size in op.sizes) for op in seen)


def counted_by_fvcore(model: nn.Module, example: Example) -> int:
    """Multiply-adds of convolutions and matrix products, counted by fvcore on the network as it is."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(
            _Plain(model, example), tuple(v for v in tree_leaves(call_arguments(example)) if isinstance(v, Tensor))
        )
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        counts = analysis.by_operator()
    return int(sum(counts[name] for name in COUNTED))


def counted_by_torch(model: nn.Module, example: Example) -> int:
    """Multiply-adds that torch's own counter sees, attention and einsum included, recurrent layers not."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        run_model(model, example)
    return int(counter.get_total_flops()) // 2


def multiply_adds_for_torch(space: SearchSpace, widths: Widths, model: nn.Module) -> int:
    """Sum of the matrix products that torch's own counter can see, at one width vector."""
    recurrent = {name for name, module in model.named_modules() if isinstance(module, nn.RNNBase)}
    seen = (op for op in space.operations if op.layer not in recurrent and op.kind != "uncounted")
    return sum(op.coefficient * math.prod(size(widths) for size in op.sizes) for op in seen)


@final
class _Plain(nn.Module):
    """A model for fvcore, whose tracer makes tensors of numbers: only tensors go in and come out."""

    def __init__(self, model: nn.Module, example: Example) -> None:
        super().__init__()
        self.model = model
        self._example = call_arguments(example)

    def forward(self, *tensors: Tensor) -> Any:
        given = iter(tensors)
        args, kwargs = tree_map_only(Tensor, lambda _: next(given), self._example)
        return tuple(v for v in tree_leaves(self.model(*args, **kwargs)) if isinstance(v, Tensor))
