"""Peak memory of one forward pass without gradients, in megabytes (10^6 bytes).

The largest sum, over the operator calls, of what is held during a call: inputs (all along, by the caller), results that
are still needed, and all parameters and buffers. Views and results written in place take no memory of their own. Of
what kernels take for themselves only the copies of convolutions and matrix products on a CPU are counted
(`cpu_convolution.py`, `cpu_products.py`), neither cuDNN's workspaces nor what recurrent layers, fused attention and
strided transposed convolutions set aside. Nor are values that `forward` keeps in local variables after their last use,
such as both halves of a chunk: write such a gate without names for them, or expect its peak to be higher by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias, final

import numpy as np

from autoprune.cost.memory.cpu_convolution import ConvolutionCopies
from autoprune.cost.memory.cpu_products import ProductCopies
from autoprune.cost.memory.dtypes import MEGABYTE, bytes_of
from autoprune.cost.memory.held import Held
from autoprune.cost.memory.size_mb import held_mb
from autoprune.cost.polynomial import CostFunction, Polynomial, WidthMatrix
from autoprune.cost.unpriced import UnpricedError
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, SearchSpace
from autoprune.space.sizes import AffineSize

_CELLS = 4_000_000  # entries of the matrix (widths, values) that is held at once
_Copies: TypeAlias = ConvolutionCopies | ProductCopies


def peak_memory_mb(
    space: SearchSpace,
    *,
    batch: int | None = None,
    dtype: str | None = None,
    device: str = "cpu",
    threads: int = 1,
) -> CostFunction:
    """Return the function (N, G) widths -> (N,) megabytes.

    Args:
        space: with the calls of its graph.
        batch: how many inputs at once; None: as many as in the example.
        dtype: of all floating point tensors, for example "float16"; None: as they are.
        device: "cpu" adds the copies that PyTorch's convolutions and matrix products make there; "any" counts what the
            graph holds alone.
        threads: of PyTorch on a CPU; which convolutions make copies depends on it.

    Raises:
        BudgetError: the space does not know its graph.
        ConfigError: a setting out of range.
    """
    if space.resolution is not None:
        raise UnpricedError("peak_memory_mb is known at one size of images only; leave resolution or this limit out")
    if not space.calls:
        raise UnpricedError(
            "peak_memory_mb needs the calls of the model's graph, which this space does not hold (it was made by "
            "hand or saved by an older version); trace the model anew"
        )
    for name, number in (("batch", batch), ("threads", threads)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
            raise ConfigError(f"peak_memory_mb: {name} must be a whole number of at least 1, got {number!r}")
    if device not in ("cpu", "any"):
        raise ConfigError(f"peak_memory_mb: device {device!r} is unknown; choose cpu or any")
    traced = space.traced_batch
    at_once = traced if batch is None else batch
    growth = at_once / traced
    copies: tuple[_Copies, ...] = ()
    if device == "cpu":
        convolutions = ConvolutionCopies(space, at_once, threads, bytes_of("float32", dtype))
        copies = convolutions, ProductCopies(space, growth, dtype)
    return _PeakMemory(space, growth, dtype, copies)


@final
class _PeakMemory:
    """Bytes of every value that has memory of its own, and during which calls it is held."""

    def __init__(self, space: SearchSpace, growth: float, dtype: str | None, copies: Sequence[_Copies]) -> None:
        owners = [index for index, a in enumerate(space.activations) if a.storage == index]
        per_element = [
            (growth if a.batched else 1.0) * (a.bytes if dtype is None else bytes_of(a.dtype, dtype))
            for a in (space.activations[index] for index in owners)
        ]
        self._weights, self._copies = held_mb(space, dtype=dtype), copies
        self._held = Held(space, owners, [call for some in copies for call in some.calls.tolist()])
        sizes = [space.activations[index].sizes for index in owners]
        self._bytes = _Bytes(sizes, per_element, self._held.switches, len(space.groups))

    def __call__(self, widths: WidthMatrix) -> FloatArray:
        """Return the (N,) megabytes at the (N, G) widths."""
        w = np.atleast_2d(np.asarray(widths, dtype=np.float64))
        rows = max(1, _CELLS // max(self._held.shape))
        parts = [self._peak(w[start : start + rows]) for start in range(0, len(w), rows)]
        peak: FloatArray = np.concatenate(parts) if parts else np.zeros(0)
        return peak / MEGABYTE + self._weights(w)

    def _peak(self, w: FloatArray) -> FloatArray:
        copied: dict[int, FloatArray] = {}
        for copies in self._copies:
            copied.update(zip(copies.calls.tolist(), copies(w).T, strict=True))
        peak: FloatArray = self._held.sums(self._bytes(w), copied, w).max(axis=1)
        return peak


@final
class _Bytes:
    """Bytes of many values as a function of the widths: linear where one size varies, a product where more do."""

    def __init__(
        self,
        sizes: Sequence[Sequence[AffineSize]],
        per_element: Sequence[float],
        switches: Sequence[int],
        n_groups: int,
    ) -> None:
        self._constant = np.zeros(len(sizes))
        self._linear = np.zeros((n_groups, len(sizes)))
        self._products: list[tuple[int, float, Polynomial]] = []
        self._switches = [(value, group) for value, group in enumerate(switches) if group >= 0]
        for value, (dims, unit) in enumerate(zip(sizes, per_element, strict=True)):
            varying = [size for size in dims if size.terms]
            fixed = unit * math.prod(size.constant for size in dims if not size.terms)
            if len(varying) > 1:
                self._products.append((value, fixed, Polynomial([(1, varying)], n_groups)))
                continue
            self._constant[value] = fixed * (varying[0].constant if varying else 1)
            for group, multiplicity in varying[0].terms if varying else ():
                self._linear[group, value] += fixed * multiplicity

    def __call__(self, w: FloatArray) -> FloatArray:
        """Return (N, values)."""
        found: FloatArray = w @ self._linear + self._constant
        for value, fixed, product in self._products:
            found[:, value] = fixed * product(w)
        for value, group in self._switches:
            found[:, value] *= w[:, group]
        return found
