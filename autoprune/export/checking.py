"""Whether what was written computes what the network does."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autoprune.errors import ExportError, blame
from autoprune.export.base import Exporter, ExportSource, WrittenFiles
from autoprune.export.inputs import drawn, tensors_of
from autoprune.export.program import quiet
from autoprune.randomness import seeded
from autoprune.space.tracing.program import call_arguments

TOLERANCE = 1e-4
"""Largest difference of outputs that passes, as a share of the largest output."""

_SMALLEST = 1e-2
"""Outputs below it are compared as if the largest were this: they may be rounding errors of sums that cancel."""

_BATCHES = (1, 2, 5)


def largest_difference(
    name: str, exporter: Exporter, source: ExportSource, written: WrittenFiles, folder: Path
) -> float | None:
    """How far the outputs of what was written are from the network's, on random inputs; None where it cannot run here.

    Args:
        name: of the format, for messages.
        exporter: it can read what it wrote.
        source: the network.
        written: what the exporter said.
        folder: that it wrote into.

    Raises:
        ExportError: it does not run, or they differ by more than `TOLERANCE`.
    """
    with blame(ExportError, f"the network written as {name} cannot be read back", then="Take another format."):
        call = exporter.read(folder)
    if call is None:
        return None
    batches: Iterable[int | None] = (None, *(_BATCHES if written.any_batch else ()))
    worst = 0.0
    for seed, batch in enumerate(batches):
        args, kwargs = call_arguments(drawn(source.inputs, seed=seed, batch=batch))
        with blame(ExportError, f"the network written as {name} cannot be run", then="Take another format."):
            given = _outputs(call, args, kwargs, seed)
        expected = _outputs(source.network, args, kwargs, seed)
        worst = max(worst, difference(expected, given))
        if not worst <= TOLERANCE:
            chance = difference(expected, _outputs(source.network, args, kwargs, seed + 1))
            if chance > TOLERANCE:
                raise ExportError(
                    f"the network written as {name} cannot be compared: this {type(source.network).__name__} draws "
                    f"random numbers in evaluation mode, two calls of it differ by {chance:.2g} of the largest output; "
                    f"draw them in training only, or take torch_export or module, which draw the same numbers"
                )
            raise ExportError(
                f"the network written as {name} differs from the one that was searched by {worst:.2g} of the largest "
                f"output on random inputs, batch {batch or 'as traced'} (allowed: {TOLERANCE:g}); take another format"
            )
    return worst


def _outputs(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], seed: int) -> list[Tensor]:
    """The output tensors; networks that draw numbers draw those of the seed."""
    with torch.no_grad(), seeded(seed), quiet():
        return tensors_of(call(*args, **kwargs))


def difference(expected: list[Tensor], given: list[Tensor]) -> float:
    """The largest difference, as a share of the largest number in that output; infinite for other shapes."""
    if [tuple(tensor.shape) for tensor in expected] != [tuple(tensor.shape) for tensor in given]:
        return math.inf
    return max((_difference(one, two) for one, two in zip(expected, given, strict=True)), default=0.0)


def _difference(expected: Tensor, given: Tensor) -> float:
    one, two = (
        tensor.detach().cpu().to(torch.complex128 if tensor.is_complex() else torch.float64)
        for tensor in (expected, given)
    )
    if not one.numel():
        return 0.0
    same = (one == two) | (one.isnan() & two.isnan())
    error = torch.where(same, 0.0, (one - two).abs())
    known = one[one.isfinite()].abs()
    scale = max(_SMALLEST, float(known.max()) if known.numel() else 1.0)
    return float(error.nan_to_num(nan=math.inf, posinf=math.inf).max()) / scale
