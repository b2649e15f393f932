"""Examples with an axis of length one (one token, one frame, a batch of one), tried once more with a longer one.

Along such an axis nothing can be mixed, and a reshape that moves channels across it looks like one that does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from autoprune.space.groups import AxisLayout, SearchSpace, StepLayout
from autoprune.space.tracing.program import Example, run_model, tensors
from autoprune.space.verification.comparison import relative

_LENGTH = 3


def lengthened(model: nn.Module, example: Example, tolerance: float) -> Iterator[Example]:
    """The example with longer axes where the model runs on it; with a batch of two only where it mixes its samples."""
    leaves = [leaf for leaf in tree_leaves(example) if isinstance(leaf, Tensor)]
    dims = sorted({dim for leaf in leaves for dim in range(1, leaf.ndim) if leaf.shape[dim] == 1})
    for chosen in (dims, *([dim] for dim in dims if len(dims) > 1)):
        longer = _along(example, chosen, _LENGTH)
        if chosen and _runs(model, longer):
            yield longer
            break
    if all(leaf.ndim and leaf.shape[0] == 1 for leaf in leaves) and _mixes(model, example, tolerance):
        yield _along(example, [0], 2)


def _along(example: Example, dims: list[int], length: int) -> Example:
    def repeated(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.repeat([length if dim in dims and n == 1 else 1 for dim, n in enumerate(value.shape)])

    longer: Example = tree_map(repeated, example)
    return longer


def _runs(model: nn.Module, example: Example) -> bool:
    try:
        with torch.no_grad():
            run_model(model, example)
    except Exception:  # noqa: BLE001 - user code may refuse another length in any way
        return False
    return True


def _mixes(model: nn.Module, example: Example, tolerance: float) -> bool:
    """True where a network gives two samples at once something else than one after the other."""

    def mirrored(value: Any) -> Any:
        return value.flip(-1) if isinstance(value, Tensor) and value.ndim > 1 else value

    def both(one: Any, other: Any) -> Any:
        return torch.cat([one, other]) if isinstance(one, Tensor) else one

    second = tree_map(mirrored, example)
    try:
        with torch.no_grad():
            alone = [tensors(run_model(model, given)) for given in (example, second)]
            together = tensors(run_model(model, tree_map(both, example, second)))
    except Exception:  # noqa: BLE001 - user code may refuse another batch in any way
        return False
    pairs = zip(together, *alone, strict=True)
    return any(
        a.ndim == 0 or len(a) != 1 or len(t) != 2 or relative(t, torch.cat([a, b])) > 10 * tolerance
        for t, a, b in pairs
    )


def carried_over(space: SearchSpace, other: SearchSpace) -> SearchSpace | None:
    """The space with the values of another trace of the same model; None where channels lie otherwise in that one.

    Args:
        space: whose groups are kept.
        other: of the longer example.
    """
    layouts = {layout.name: layout for layout in other.tensors}
    known: dict[tuple[int, int], tuple[int, int]] = {}
    for layout in space.tensors:
        for ours, theirs in zip(layout.axes, layouts[layout.name].axes, strict=True):
            if ours is None:
                continue
            if theirs is None:
                return None
            for one, two in zip(_pairs(ours), _pairs(theirs), strict=True):
                if one[0] >= 0 and (two[0] < 0 or known.setdefault(two, one) != one):
                    return None
    steps = []
    for step in other.steps:
        axes = []
        for dim, axis in step.axes:
            ours_ = [known.get(pair, (-1, 0)) for pair in _pairs(axis)]
            group, channel = (np.array(column, dtype=np.int64) for column in zip(*ours_, strict=True))
            if (group >= 0).any():
                axes.append((dim, AxisLayout(group, channel)))
        if axes:
            steps.append(StepLayout(step.name, tuple(axes)))
    return replace(space, steps=tuple(steps))


def _pairs(axis: AxisLayout) -> list[tuple[int, int]]:
    return list(zip(axis.group.tolist(), axis.channel.tolist(), strict=True))
