"""What a dense network gives where a cut one is refitted layer by layer: in one pass, kept for all candidates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.inherit.norms_on_the_way import DenseNorm
from autoprune.space.copying import copy_network
from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.groups import SearchSpace
from autoprune.statistics.calls import WeightCall, WeightCalls
from autoprune.statistics.consumers import look_at
from autoprune.statistics.norms import norm_arguments
from autoprune.statistics.rows import map_rows, output_rows, weight_matrix
from autoprune.statistics.running import evaluating, examples_of
from autoprune.statistics.sums import Beside, branches

VALUES = 2**26
"""So many values of one consumer's inputs are looked at, at most."""

FEW = 2
"""Examples that are enough to see which calls there are."""


@final
class DenseTargets(WeightCalls):
    """Rows of the outputs of each consumer, of the other side of the sum behind it, and of norms behind no consumer.

    Args:
        dense: the dense network; a copy runs.
        space: its space.
        inputs: one batch of all calibration inputs.
        positions: of each example that are looked at.
        device: where to run.

    Attributes:
        consumers: by name, those that are called once.
        several: names of those that are called several times.
        examples: in the batch.
        positions: name of a consumer -> of how many positions of each example there are rows.
        beside: rows of what outputs are added to.
        outputs: name of a consumer -> (rows, outputs), its bias included.
        behind: name of a consumer -> the norm right behind it.
        norms: name of a running mean -> (rows, channels) of what a norm that is behind none of them gives.
    """

    def __init__(
        self, dense: nn.Module, space: SearchSpace, inputs: Batch, positions: int, device: torch.device
    ) -> None:
        model = copy_network(dense).to(device).eval()
        found, few = look_at(model, space, inputs.first(FEW).inputs), inputs.first(FEW).inputs
        self.consumers = {c.name: c for c in found if c.calls == 1}
        self.several = tuple(c.name for c in found if c.calls > 1)
        super().__init__(model, tuple(self.consumers))
        self.examples, self._most = examples_of(inputs.inputs), positions
        self.positions = {name: self._fewer(_row(c.call, tensor_of(model, name))) for name, c in self.consumers.items()}
        self.beside = Beside(branches(model, tuple(self.consumers), few), self.consumers, self.examples, self.positions)
        self.behind = {name: DenseNorm.of(model, c.norm) for name, c in self.consumers.items() if c.norm is not None}
        self._behind = {c.norm.mean for c in self.consumers.values() if c.norm is not None}
        self._buffers = {id(tensor): name for name, tensor in model.named_buffers(remove_duplicate=False)}
        self.outputs: dict[str, Tensor] = {}
        self.norms: dict[str, Tensor] = {}
        self._several_norms: set[str] = set()
        with evaluating(model), self:
            inputs.outputs(model)
        self._buffers.clear()
        self.forget()

    def norm_positions(self, channels: int) -> int:
        """Of each example, for a norm over so many channels."""
        return self._fewer(channels)

    def _fewer(self, values: int) -> int:
        return min(self._most, max(1, VALUES // (self.examples * values)))

    def called(self, call: WeightCall, run: Callable[[], Tensor]) -> Tensor:
        """See `WeightCalls.called`."""
        outputs = run()
        self.beside.ended(outputs)
        rows = output_rows(call, outputs, self.examples, positions=self.positions[call.name])
        self.outputs[call.name] = rows
        return outputs

    def other(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        """See `WeightCalls.other`."""
        outputs = run()
        self.beside.ended(outputs)
        norm = norm_arguments(func, args, kwargs)
        name = "" if norm is None or norm["training"] else self._buffers.get(id(norm["running_mean"]), "")
        if name and name not in self._behind and name not in self._several_norms:
            if self.norms.pop(name, None) is not None:
                self._several_norms.add(name)
            else:
                self.norms[name] = map_rows(name, outputs, positions=self._fewer(outputs.shape[1]))
        return outputs


def _row(call: WeightCall, weight: Tensor) -> int:
    """Values that one output of all groups is computed from."""
    matrix = weight_matrix(call, weight)
    return matrix.shape[0] * matrix.shape[2]
