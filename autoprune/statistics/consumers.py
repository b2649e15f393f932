"""Consumers of channels: what weights multiply them, seen in one forward pass.

A consumer is a weight that multiplies channels: of a convolution (plain, grouped, depthwise, transposed), a linear
layer, a matrix product, a projection of attention.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.data.batch import Batch
from autoprune.space.copying import copy_network
from autoprune.space.groups import SearchSpace
from autoprune.statistics.calls import WeightCall, WeightCalls
from autoprune.statistics.norms import Norm, norm_arguments
from autoprune.statistics.running import evaluating


@final
@dataclass(frozen=True, slots=True, eq=False)
class Consumer:
    """A weight that multiplies channels, as one forward pass uses it.

    Attributes:
        call: the first call of it, without its inputs; `rows.weight_matrix` and `rows.matrix_weight` read it.
        calls: how many calls there are.
        norm: where its output goes; None where that is no batch norm, or not only one.
    """

    call: WeightCall
    calls: int = 1
    norm: Norm | None = None

    @property
    def name(self) -> str:
        """Of the weight."""
        return self.call.name

    @property
    def bias(self) -> str | None:
        """Name of the bias."""
        return self.call.bias

    @property
    def reads(self) -> int:
        """See `WeightCall.reads`."""
        return self.call.reads


def consumers(model: nn.Module, space: SearchSpace, inputs: Any) -> tuple[Consumer, ...]:
    """The consumers of a network in the order of their first calls, seen in one forward pass.

    Those whose inputs cannot be cut are among them. Left out is what is not seen as such a call (recurrent layers,
    computed weights), and what is also used in other ways (tied embeddings).

    Args:
        model: in the form of its space, dense or cut; only read: a copy runs.
        space: of the dense network.
        inputs: one batch.
    """
    copied = copy_network(model).eval()
    return look_at(copied, space, inputs)


def look_at(model: nn.Module, space: SearchSpace, inputs: Any) -> tuple[Consumer, ...]:
    """As `consumers`, of a network that runs as it is and may be moved into eval mode."""
    names = tuple(layout.name for layout in space.tensors if layout.kind == "parameter")
    look = _Look(model, names)
    with evaluating(model), look:
        Batch(inputs).outputs(model)
    return look.result()


@final
class _Look(WeightCalls):
    """Notes which calls there are and where their outputs go."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__(model, names)
        every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
        self._names = {id(tensor): name for name, tensor in every}
        self._found: dict[str, Consumer] = {}
        self._elsewhere: set[str] = set()
        self._made: dict[int, tuple[weakref.ref[Tensor], str]] = {}
        self._norms: dict[str, list[Norm | None]] = {}
        self._normed: dict[str, int] = {}

    def called(self, call: WeightCall, run: Callable[[], Tensor]) -> Tensor:
        self._passed(call.inputs, None)
        outputs = run()
        known = self._found.get(call.name)
        self._found[call.name] = (
            Consumer(call.without_inputs()) if known is None else replace(known, calls=known.calls + 1)
        )
        self._made[id(outputs)] = weakref.ref(outputs), call.name
        return outputs

    def other(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        outputs = run()
        if isinstance(outputs, Tensor) or (isinstance(outputs, tuple | list) and outputs):
            self._passed((args, kwargs), self._norm(func, args, kwargs))
        return outputs

    def weight_read(self, name: str) -> None:
        self._elsewhere.add(name)

    def _passed(self, given: Any, norm: Norm | None) -> None:
        for value in pytree.tree_leaves(given):
            made, name = self._made.get(id(value), (None, ""))
            if made is not None and made() is value:
                self._norms.setdefault(name, []).append(norm)

    def _norm(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Norm | None:
        given = norm_arguments(func, args, kwargs)
        if given is None or given["training"]:
            return None
        mean, variance, weight, bias = (
            self._names.get(id(given.get(key))) for key in ("running_mean", "running_var", "weight", "bias")
        )
        if mean is None or variance is None:
            return None
        self._normed[mean] = self._normed.get(mean, 0) + 1
        if any(given.get(key) is not None and not name for key, name in (("weight", weight), ("bias", bias))):
            return None  # a computed scale is not ours to change
        return Norm(mean, variance, weight, bias, float(given.get("eps", 1e-5)))

    def result(self) -> tuple[Consumer, ...]:
        made = []
        for name, consumer in self._found.items():
            norms = self._norms.get(name, [])
            only = norms[0] if len(norms) == consumer.calls == 1 else None
            if only is not None and self._normed[only.mean] > 1:
                only = None  # a norm that others use, too, is not this consumer's to change
            if name not in self._elsewhere:
                made.append(replace(consumer, norm=only))
        return tuple(made)
