"""Verification: every space is tried before it is used.

A random cut of every group is built and run; its output must equal the full model with the cut channels masked (they
reach no consumer), and the closed-form FLOPs must equal fvcore's count on the cut network. A group that fails is
frozen with the reason and the search goes on.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autoprune.errors import SpaceError
from autoprune.randomness import untouched
from autoprune.space.choices import freeze_groups
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.slicing import Ranking, kept_mask, slice_model, tensor_of

TOLERANCE = 1e-4
"""Largest accepted difference between sliced and masked output, relative to the largest output."""

_RANDOM_CUTS = 3

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
        seed: of the random cuts.

    Raises:
        SpaceError: fvcore counts other FLOPs than the closed form, no group is left, or the model is random.
    """
    with untouched():
        trial = _Trial(scrambled(model, seed=seed), inputs, seed)
        trial.check_repeatable()
        worst: float | None = None
        while worst is None:  # every round but the last freezes a group
            if not space.groups:
                reasons = "; ".join(sorted({f"{part.name}: {part.reason}" for part in space.frozen})[:3])
                raise SpaceError(f"nothing in this model can be pruned ({reasons})")
            space, worst = trial.run(space)
        trial.check_flops(space)
    return Verified(space, worst)


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
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

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

    def run(self, space: SearchSpace) -> tuple[SearchSpace, float | None]:
        """Try cuts until one fails; return the space without the culprits, or the largest error where none failed."""
        worst = 0.0
        for widths in self._cuts(space):
            ranking = tuple(self._rng.permutation(group.width) for group in space.groups)
            error, problem = self._compare(space, widths, ranking)
            if problem:
                return freeze_groups(space, self._culprits(space, widths, ranking)), None
            worst = max(worst, error)
        return space, worst

    def check_repeatable(self) -> None:
        """Two passes of the same network must agree, or no comparison means anything."""
        once, again = (_outputs(self._model, self._inputs) for _ in range(2))
        if any(_relative(a, b) > TOLERANCE for a, b in zip(once, again, strict=True)):
            raise SpaceError(
                "the model gives two different outputs for the same input in evaluation mode; "
                "switch off what is random in its forward, or what remembers earlier inputs"
            )

    def check_flops(self, space: SearchSpace) -> None:
        """Hold what cutting saves in closed form against fvcore's counts on networks really built.

        What fvcore does not know (fused attention, recurrent layers) counts here although it is never cut.
        """
        ranking = tuple(np.arange(group.width) for group in space.groups)
        full, cut = (
            counted_by_fvcore(slice_model(self._model, space, widths, ranking), self._inputs)
            for widths in (space.full, space.smallest)
        )
        ours_full, ours_cut = multiply_adds(space, space.full), multiply_adds(space, space.smallest)
        if ours_full - ours_cut != full - cut or ours_full < full:
            raise SpaceError(
                f"closed-form FLOPs {ours_full:,} and, at the smallest widths, {ours_cut:,} differ from fvcore's "
                f"{full:,} and {cut:,}; a budget cannot be kept on a wrong count. Please report this model"
            )

    def _cuts(self, space: SearchSpace) -> Iterator[Widths]:
        """All groups cut at random, then every two groups apart (one cut, one full), then the smallest widths."""
        everything = set(range(len(space.groups)))
        for _ in range(_RANDOM_CUTS):
            yield self._cut(space, everything)
        for bit in range((len(everything) - 1).bit_length()):
            yield self._cut(space, {index for index in everything if index >> bit & 1})
        yield space.smallest

    def _cut(self, space: SearchSpace, indices: set[int]) -> Widths:
        return tuple(
            int(self._rng.choice(group.choices[:-1] or group.choices)) if index in indices else group.width
            for index, group in enumerate(space.groups)
        )

    def _culprits(self, space: SearchSpace, widths: Widths, ranking: Ranking) -> dict[int, str]:
        """The groups without which these widths pass, and what goes wrong with each; found by halving."""
        reasons: dict[int, str] = {}
        good: set[int] = set()

        def search(suspects: list[int]) -> None:
            cut = good.union(suspects)
            only = tuple(w if i in cut else full for i, (w, full) in enumerate(zip(widths, space.full, strict=True)))
            problem = self._compare(space, only, ranking)[1]
            if problem is None:
                good.update(suspects)
            elif len(suspects) == 1:
                reasons[suspects[0]] = problem
            else:
                search(suspects[: len(suspects) // 2])
                search(suspects[len(suspects) // 2 :])

        search(list(range(len(space.groups))))
        return reasons

    def _compare(self, space: SearchSpace, widths: Widths, ranking: Ranking) -> tuple[float, str | None]:
        """Return the relative error of the sliced network, and what is wrong with it (None: nothing)."""
        expected = _outputs(masked(self._model, space, widths, ranking), self._inputs)
        try:
            found = _outputs(slice_model(self._model, space, widths, ranking), self._inputs)
        except Exception as error:  # noqa: BLE001 - user code on a cut network may fail in any way; it is frozen then
            first = (str(error).splitlines() or [""])[0][:160]
            return math.inf, f"the cut network does not run: {type(error).__name__}: {first}"
        if [o.shape for o in found] != [o.shape for o in expected]:
            return math.inf, "the cut network's output has another shape"
        worst = max((_relative(f, e) for f, e in zip(found, expected, strict=True)), default=0.0)
        return worst, None if worst <= TOLERANCE else f"the cut network's output differs by {worst:.1e}"


def _outputs(model: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    with torch.no_grad():
        return [leaf for leaf in tree_leaves(model(*inputs)) if isinstance(leaf, Tensor)]


def _relative(found: Tensor, expected: Tensor) -> float:
    scale = expected.abs().max().clamp_min(1e-30)
    error = float((found - expected).abs().max() / scale)
    return error if math.isfinite(error) else math.inf
