"""Verification: every space is tried before it is used.

A random cut of every group is built and run; its output must equal the full model with the cut channels masked (they
reach no consumer), and the closed-form FLOPs must equal fvcore's count on the cut network. A group that fails is
frozen with the reason and the search goes on.
"""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autoprune.errors import SpaceError
from autoprune.space.choices import freeze_groups
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.slicing import Ranking, kept_mask, slice_model, tensor_of

TOLERANCE = 1e-4
"""Largest accepted difference between sliced and masked output, relative to the largest output."""

COUNTED = ("conv", "linear", "addmm", "matmul", "bmm", "einsum")
"""fvcore's operators that the closed form is held against."""


@final
@dataclass(frozen=True, eq=False)
class Verified:
    """A space whose groups were all cut, built and compared.

    Attributes:
        space: without the groups that failed; those are listed as frozen.
        largest_error: largest relative difference between sliced and masked outputs that was seen and accepted.
    """

    space: SearchSpace
    largest_error: float


def verify(model: nn.Module, space: SearchSpace, inputs: tuple[Any, ...], *, seed: int = 0) -> Verified:
    """Cut every group at random, compare with the masked full model, and hold the FLOPs against fvcore.

    Args:
        model: the traced model; only read.
        space: its space.
        inputs: positional example inputs.

    Raises:
        SpaceError: fvcore counts other FLOPs than the closed form, or no group is left.
    """
    trial = _Trial(scrambled(model, seed=seed), inputs, seed)
    error, problem = trial.compare(space, trial.random_widths(space))
    if problem:
        space = _freeze_failing(trial, space)
        error, _ = trial.compare(space, trial.random_widths(space))
    if not space.groups:
        reasons = "; ".join(sorted({f"{part.name}: {part.reason}" for part in space.frozen})[:3])
        raise SpaceError(f"nothing in this model can be pruned ({reasons})")
    smallest_error, _ = trial.compare(space, space.smallest)
    trial.check_flops(space)
    return Verified(space, max(error, smallest_error))


def scrambled(model: nn.Module, *, seed: int) -> nn.Module:
    """A copy in evaluation mode whose constant tensors (fresh norms, zero biases) are random, so that no cut hides."""
    clone = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*clone.parameters(), *clone.buffers()):
            if tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return clone


def masked(model: nn.Module, space: SearchSpace, widths: Widths, ranking: Ranking) -> nn.Module:
    """A copy of the full model in which cut channels reach no consumer."""
    clone = copy.deepcopy(model)
    with torch.no_grad():
        for layout in space.tensors:
            for dim in layout.reads:
                axis = layout.axes[dim]
                if axis is not None:
                    cut = torch.from_numpy(np.flatnonzero(~kept_mask(axis, widths, ranking)))
                    tensor = tensor_of(clone, layout.name)
                    tensor.index_fill_(dim, cut.to(tensor.device), 0.0)
    return clone


def multiply_adds(space: SearchSpace, widths: Widths) -> int:
    """Sum of all matrix products at one width vector, in plain integers."""
    return sum(op.coefficient * math.prod(size(widths) for size in op.sizes) for op in space.operations)


def counted_by_fvcore(model: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Multiply-adds of convolutions and matrix products, counted by fvcore on the network as it is."""
    from fvcore.nn import FlopCountAnalysis

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(model, inputs)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        counts = analysis.by_operator()
    return int(sum(counts[name] for name in COUNTED))


@final
class _Trial:
    """Builds cut networks of one scrambled model and compares them with masked ones."""

    def __init__(self, model: nn.Module, inputs: tuple[Any, ...], seed: int) -> None:
        self._model = model
        self._inputs = inputs
        self._rng = np.random.default_rng(seed)

    def random_widths(self, space: SearchSpace) -> Widths:
        """A width vector that cuts every group that can be cut."""
        return tuple(int(self._rng.choice(g.choices[:-1] or g.choices)) for g in space.groups)

    def compare(self, space: SearchSpace, widths: Widths) -> tuple[float, str | None]:
        """Return the relative error of the sliced network, and what is wrong with it (None: nothing)."""
        ranking = tuple(self._rng.permutation(group.width) for group in space.groups)
        expected = _outputs(masked(self._model, space, widths, ranking), self._inputs)
        try:
            found = _outputs(slice_model(self._model, space, widths, ranking), self._inputs)
        except Exception as error:  # noqa: BLE001 - user code on a cut network may fail in any way; it is frozen then
            return math.inf, f"the cut network does not run: {type(error).__name__}: {str(error).splitlines()[0][:160]}"
        if [o.shape for o in found] != [o.shape for o in expected]:
            return math.inf, "the cut network's output has another shape"
        worst = max((_relative(f, e) for f, e in zip(found, expected, strict=True)), default=0.0)
        return worst, None if worst <= TOLERANCE else f"the cut network's output differs by {worst:.1e}"

    def check_flops(self, space: SearchSpace) -> None:
        """Hold the closed form against fvcore on a network really built that narrow."""
        widths = self.random_widths(space)
        ranking = tuple(np.arange(group.width) for group in space.groups)
        counted = counted_by_fvcore(slice_model(self._model, space, widths, ranking), self._inputs)
        if counted != multiply_adds(space, widths):
            raise SpaceError(
                f"closed-form FLOPs {multiply_adds(space, widths):,} differ from fvcore's {counted:,} on the cut network "
                f"{space.by_name(widths)}; a budget cannot be kept on a wrong count. Please report this model"
            )


def _freeze_failing(trial: _Trial, space: SearchSpace) -> SearchSpace:
    """Freeze groups that fail alone, then groups that fail together with those before them."""
    reasons: dict[int, str] = {}
    for index in range(len(space.groups)):
        _, problem = trial.compare(space, _only({index}, space, trial))
        if problem:
            reasons[index] = problem
    good: set[int] = set()
    for index in range(len(space.groups)):
        if index not in reasons:
            _, problem = trial.compare(space, _only(good | {index}, space, trial))
            if problem:
                reasons[index] = f"together with other groups, {problem}"
            else:
                good.add(index)
    return freeze_groups(space, reasons)


def _only(indices: set[int], space: SearchSpace, trial: _Trial) -> Widths:
    cut = trial.random_widths(space)
    return tuple(w if i in indices else full for i, (w, full) in enumerate(zip(cut, space.full, strict=True)))


def _outputs(model: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    with torch.no_grad():
        return [leaf for leaf in tree_leaves(model(*inputs)) if isinstance(leaf, Tensor)]


def _relative(found: Tensor, expected: Tensor) -> float:
    scale = expected.abs().max().clamp_min(1e-30)
    error = float((found - expected).abs().max() / scale)
    return error if math.isfinite(error) else math.inf
