"""The calls of a dense network that read channels of the space, each a linear function of its inputs and its weight.

Depthwise convolutions are not among them: they read no other channel than their own and lose nothing by a cut.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from torch import Tensor, nn

from autoprune.inherit.channels import ChannelInputs
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.groups import SearchSpace, TensorLayout
from autoprune.statistics.calls import WeightCall, WeightCalls
from autoprune.statistics.norms import norm_arguments
from autoprune.statistics.rows import matrix_weight, weight_matrix


@final
@dataclass(frozen=True, slots=True, eq=False)
class ChannelCall:
    """One call that reads channels.

    Attributes:
        call: the call; it holds no inputs.
        channels: of the inputs of a block (a group of a grouped convolution; the only one of all else).
        outputs: how many outputs the weight has along its other axis in the dense network.
    """

    call: WeightCall
    channels: ChannelInputs
    outputs: int

    @property
    def weight(self) -> str:
        """Name of its weight."""
        return self.call.name

    @property
    def bias(self) -> str | None:
        """Name of the bias that it adds; None if there is none, or a computed one."""
        return self.call.bias

    @property
    def reads(self) -> int:
        """Axis of the weight along which the incoming channels of a block lie (of all blocks, if transposed)."""
        return self.call.reads

    @property
    def writes(self) -> int:
        """Axis of the outgoing channels."""
        return 1 - self.call.reads

    @property
    def blocks(self) -> int:
        """Groups of a grouped convolution; 1 for all else."""
        return self.call.groups

    @property
    def spatial(self) -> int:
        """Dimensions of its inputs and outputs that follow the channels."""
        return len(self.call.kernel)

    def matrix(self, weight: Tensor) -> Tensor:
        """(blocks, incoming channels of a block, all else) of a weight of this call, cut or not."""
        rows = weight_matrix(self.call, weight)
        return rows.reshape(*rows.shape[:2], -1, math.prod(self.call.kernel)).transpose(1, 2).flatten(2)

    def weights(self, matrix: Tensor, like: Tensor) -> Tensor:
        """The weight, in the shape of `like`, that has this matrix."""
        rows = matrix.reshape(*matrix.shape[:2], -1, math.prod(self.call.kernel)).transpose(1, 2).flatten(2)
        return matrix_weight(self.call, rows, like).to(like.dtype)

    def rows(self, values: Tensor) -> Tensor:
        """(positions, blocks, channels of a block) of inputs."""
        flat = values.movedim(values.ndim - 1 - self.spatial, -1)
        return flat.reshape(-1, self.blocks, flat.shape[-1] // self.blocks)

    def kept(self, cut: Cut) -> Tensor | None:
        """Incoming channels of a block that survive; None where all do."""
        indices = cut.kept[self.weight][self.reads]
        return indices if indices is None or self.reads else indices[: len(indices) // self.blocks]

    def lost_inputs(self, cut: Cut) -> bool:
        """Whether the cut network has it, with fewer incoming channels."""
        return self.weight in cut.kept and cut.kept[self.weight][self.reads] is not None

    def dense_weight(self, cut: Cut, dense: nn.Module) -> Tensor:
        """The weight of the dense network, of the outputs that survive and all inputs."""
        weight, indices = tensor_of(dense, self.weight).detach(), cut.kept[self.weight][self.writes]
        return weight if indices is None else weight.index_select(self.writes, indices.to(weight.device))


CallKey: TypeAlias = tuple[str, int]
"""(weight, which of its calls)."""

Visit: TypeAlias = Callable[[CallKey, ChannelCall, Tensor, Tensor], None]
"""(key, the call, its inputs, its weight) -> None."""


@final
class ChannelCalls(WeightCalls):
    """Inside `batch`, what reads channels is visited.

    Args:
        model: the network that will run.
        space: its space.
        visit: called at each.

    Attributes:
        readers: names of all weights that read channels.
        elsewhere: those that are used for something else than reading, too.
        norms: key of a call -> name of the running mean that a norm right behind takes away; None: that of the batch.
    """

    def __init__(self, model: nn.Module, space: SearchSpace, visit: Visit) -> None:
        self._layouts = {t.name: t for t in space.tensors if any(_is_cut(t, dim) for dim in t.reads)}
        super().__init__(model, tuple(self._layouts))
        self.readers = frozenset(self._layouts)
        self.elsewhere: set[str] = set()
        self.norms: dict[CallKey, str | None] = {}
        self._buffers = {id(tensor): name for name, tensor in model.named_buffers(remove_duplicate=False)}
        self._model, self._visit, self._space = model, visit, space
        self._counts: dict[str, int] = {}
        self._made: dict[int, tuple[weakref.ref[Tensor], CallKey]] = {}

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Watch what runs inside: one pass of the network."""
        try:
            with self:
                yield
        finally:
            self._counts.clear()
            self._made.clear()

    def called(self, call: WeightCall, run: Callable[[], Tensor]) -> Tensor:
        """See `WeightCalls.called`."""
        outputs, spatial = run(), len(call.kernel)
        width = call.inputs.shape[-1 - spatial]
        layout = self._layouts[call.name]
        axis = layout.axes[call.reads]
        if axis is None or not _is_cut(layout, call.reads) or call.groups == width > 1:
            return outputs
        number = self._counts[call.name] = self._counts.get(call.name, -1) + 1
        channels = ChannelInputs.on(axis, width // call.groups, self._space)
        found = ChannelCall(call.without_inputs(), channels, layout.shape[1 - call.reads])
        self._visit((call.name, number), found, call.inputs.detach(), tensor_of(self._model, call.name).detach())
        self._made[id(outputs)] = weakref.ref(outputs), (call.name, number)
        return outputs

    def other(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        """See `WeightCalls.other`."""
        norm = norm_arguments(func, args, kwargs)
        if norm is not None:
            made, key = self._made.get(id(norm.get("input")), (None, ("", 0)))
            name = None if norm["training"] else self._buffers.get(id(norm["running_mean"]))
            if made is not None and made() is norm["input"] and (norm["training"] or name is not None):
                self.norms[key] = name
        return run()

    def weight_read(self, name: str) -> None:
        """See `WeightCalls.weight_read`."""
        self.elsewhere.add(name)


def _is_cut(layout: TensorLayout, dim: int) -> bool:
    axis = layout.axes[dim]
    return axis is not None and bool((axis.group >= 0).any())
