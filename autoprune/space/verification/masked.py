"""The reference that every cut network is held against: the full graph in which cut channels are zero everywhere.

Zero channels contribute nothing to any consumer. Where a statistic runs over channels (layer and group norm, a mean, a
softmax), it runs over the survivors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, final

import numpy as np
import torch
from torch import Tensor, fx, nn

from autoprune.space.cutting.slicing import Ranking, kept_mask, tensor_of
from autoprune.space.groups import AxisLayout, SearchSpace, Widths
from autoprune.space.tracing.blocks import without
from autoprune.space.tracing.program import Example, Program
from autoprune.space.tracing.resize import Sized, name_of, named_arguments, operator_name
from autoprune.space.tracing.rules import rule_of
from autoprune.space.tracing.shapes import value_axes

Watch: TypeAlias = Callable[[fx.Node, list[Tensor | None]], None]
"""Told what every node makes, of which only the survivors are left."""


def run_masked(
    model: nn.Module,
    program: Program,
    space: SearchSpace,
    example: Example,
    widths: Widths,
    ranking: Ranking,
    *,
    watch: Watch | None = None,
) -> Any:
    """Outputs of the full network without the channels and blocks that these widths cut; the model is only read."""
    return _Masked(model, without(program, space.left_out(widths)), space, widths, ranking, watch).run(example)


@final
class _Masked:
    def __init__(
        self,
        model: nn.Module,
        program: Program,
        space: SearchSpace,
        widths: Widths,
        ranking: Ranking,
        watch: Watch | None,
    ) -> None:
        self._model, self._program, self._space = model, program, space
        self._widths, self._ranking, self._watch = widths, ranking, watch
        self._kept: dict[int, np.ndarray[Any, Any]] = {}
        self._axes = value_axes(space, program)

    def run(self, example: Example) -> Any:
        with torch.no_grad():
            return self._program.run(example, self._place, self._watched if self._watch else self._call)

    def _watched(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        made = self._call(node, args, kwargs)
        if self._watch and operator_name(node) != "getitem":
            named = [(node.name, made)] if isinstance(made, Tensor) else []
            if isinstance(made, list | tuple):
                named = [(f"{node.name}.{index}", value) for index, value in enumerate(made)]
            self._watch(node, [self._only_kept(v, name) if isinstance(v, Tensor) else None for name, v in named])
        return made

    def _place(self, node: fx.Node, given: Any) -> Any:
        if node.name in self._program.tensors:
            return self._without_cut(
                tensor_of(self._model, self._program.tensors[node.name][0]).detach().clone(), node.name
            )
        return given.clone() if isinstance(given, Tensor) else given

    def _call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        name = operator_name(node)
        if rule_of(node.target).statistic(node) and any(self._axes.get(name_of(n)) for n in node.all_input_nodes):
            return self._over_survivors(node, args, kwargs)
        made = node.target(*args, **kwargs)  # type: ignore[operator]
        if name == "getitem":
            return made
        return self._mapped(made, node.name, self._without_cut)

    def _over_survivors(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        given = iter(torch.utils._pytree.tree_leaves((args, kwargs)))

        def survivors(value: Any) -> Any:
            tensor = next(given)
            if isinstance(value, fx.Node) and isinstance(tensor, Tensor):
                return self._only_kept(tensor, name_of(value))
            return tensor

        nodes = (tuple(node.args), dict(node.kwargs))
        cut_args, cut_kwargs = torch.utils._pytree.tree_map(survivors, nodes)
        arguments = named_arguments(node, cut_args, cut_kwargs)
        resize = rule_of(node.target).resize
        if resize:
            arguments = resize(Sized(node, arguments, lambda index: (), lambda dim, traced: traced))
        made = node.target(**arguments)  # type: ignore[operator]
        full = node.meta["val"]
        if isinstance(made, Tensor):
            return self._spread(made, node.name, full)
        return [self._spread(m, f"{node.name}.{i}", v) for i, (m, v) in enumerate(zip(made, full, strict=True))]

    def _spread(self, made: Tensor, name: str, traced: Tensor) -> Tensor:
        """Put survivors back to their places in a full tensor of zeros."""
        axes = self._axes.get(name, {})
        for dim, axis in axes.items():
            shape = list(made.shape)
            shape[dim] = traced.shape[dim]
            kept = torch.from_numpy(np.flatnonzero(self._mask(axis))).to(made.device)
            made = made.new_zeros(shape).index_copy(dim, kept, made)
        return made

    def _only_kept(self, value: Tensor, name: str) -> Tensor:
        for dim, axis in self._axes.get(name, {}).items():
            value = value.index_select(dim, torch.from_numpy(np.flatnonzero(self._mask(axis))).to(value.device))
        return value

    def _without_cut(self, value: Tensor, name: str) -> Tensor:
        """In place where that can be: what is written into a view must reach the tensor behind it."""
        spread = any(stride == 0 and n > 1 for n, stride in zip(value.shape, value.stride(), strict=True))
        for dim, axis in self._axes.get(name, {}).items():
            cut = torch.from_numpy(np.flatnonzero(~self._mask(axis))).to(value.device)
            value = value.index_fill(dim, cut, 0) if spread else value.index_fill_(dim, cut, 0)
        return value

    def _mapped(self, made: Any, name: str, change: Any) -> Any:
        if isinstance(made, Tensor):
            return change(made, name)
        if isinstance(made, list | tuple):
            return [self._mapped(value, f"{name}.{index}", change) for index, value in enumerate(made)]
        return made

    def _mask(self, axis: AxisLayout) -> np.ndarray[Any, Any]:
        if id(axis) not in self._kept:
            self._kept[id(axis)] = kept_mask(axis, self._widths, self._ranking)
        return self._kept[id(axis)]
