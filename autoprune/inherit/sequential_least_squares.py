"""Sequential least squares: each consumer refitted on what the cut network gives it, in the order of the graph.

He, Zhang and Sun 2017, Channel Pruning, arXiv 1707.06168, sections 3.1 and 3.2: inputs are taken from the network as it
is cut, targets from the dense one, and the last layer of a branch also makes up for what its shortcut lacks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.inherit.base import Inheritance, Statistics
from autoprune.inherit.fitting import IMAGES, calibration, check_images, ridge, with_ridge
from autoprune.inherit.norms_behind import Fitted, NormsBehind
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import tensor_of
from autoprune.statistics.calls import Call, WeightCalls
from autoprune.statistics.moments import Consumer, evaluating, examples_of, look_at, on_device, run_batch
from autoprune.statistics.rows import input_rows, matrix_weight, output_rows, weight_matrix
from autoprune.statistics.sums import Beside, branches

_METHOD = "sequential_least_squares"
_VALUES = 2**26
"""So many values of one consumer's inputs are looked at, at most."""

_CHUNK = 4096


@final
class SequentialLeastSquares(Inheritance):
    """Refit every consumer, one after the other, on the inputs that the network refitted so far gives it.

    One pass of the dense network notes what each consumer gives (t), one pass of the cut one fits and goes on: at each
    consumer its inputs u' are there, those of the layers before it already refitted, and its weights become

        W' = (E[t u'^T] + l W) (E[u' u'^T] + l I)^-1,    W the weights that the slice left, l as in `fitting.ridge`,

    centred where a bias or the batch norm right behind takes the constant. Depthwise convolutions are refitted, too:
    what they read has changed. Where the output goes into a sum, t also holds what the other side of the sum lacks, if that
    was computed before. For norms see `norms_behind`.

    Left as they were: layers that are called several times, recurrent ones, and those that see values that are not
    finite. The cost: one pass of the dense network in all, and for each candidate a pass of its own and a factorisation
    for each consumer.

    Args:
        images: calibration examples; all of them run at once. No labels.

    Raises:
        ConfigError: no number of images.
    """

    changes = "weights"

    def __init__(self, *, images: int = IMAGES) -> None:
        self._images = check_images(_METHOD, images)

    def prepare(self, statistics: Statistics) -> None:
        """See `Inheritance.prepare`."""
        calibration(_METHOD, statistics, self._images)

    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> None:
        """See `Inheritance.apply`."""
        if cut.widths == cut.space.full:
            return
        batches, positions = calibration(_METHOD, statistics, self._images)
        inputs = on_device(together(batches), statistics.device)
        noted = statistics.of_dense(
            (_METHOD, self._images), dense, lambda: _Noted(dense, cut, inputs, positions, statistics.device)
        )
        fitting = _Fitting(cut, noted, inputs, statistics.device)
        with evaluating(cut.network), fitting:
            run_batch(cut.network, inputs)
        self.left_alone = fitting.left_alone


def together(batches: Any) -> Any:
    """Batches of inputs as one."""
    leaves = [pytree.tree_flatten(batch) for batch in batches]
    joined = [
        torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0]
        for parts in zip(*(v for v, _ in leaves), strict=True)
    ]
    return pytree.tree_unflatten(joined, leaves[0][1])


def _few(inputs: Any) -> Any:
    return pytree.tree_map_only(Tensor, lambda t: t[:2], inputs)


@final
class _Noted(WeightCalls):
    """What the dense network gives: rows of each consumer's outputs, and of the other side of the sum behind it."""

    def __init__(self, dense: nn.Module, cut: Cut, inputs: Any, positions: int, device: torch.device) -> None:
        model = copy.deepcopy(dense).to(device).eval()
        found = look_at(model, cut.space, _few(inputs))
        self.consumers = {c.name: c for c in found if c.calls == 1}
        self.several = tuple(c.name for c in found if c.calls > 1)
        super().__init__(model, tuple(self.consumers))
        self.examples = examples_of(inputs)
        self.positions = {
            name: min(positions, max(1, _VALUES // (self.examples * _row(c.call, tensor_of(model, name)))))
            for name, c in self.consumers.items()
        }
        self.beside = Beside(
            branches(model, tuple(self.consumers), _few(inputs)), self.consumers, self.examples, self.positions
        )
        self.norms = {name: Fitted.of(model, c.norm) for name, c in self.consumers.items() if c.norm is not None}
        self.outputs: dict[str, Tensor] = {}
        with evaluating(model), self:
            run_batch(model, inputs)
        self.forget()

    def called(self, call: Call, run: Callable[[], Tensor]) -> Tensor:
        outputs = run()
        self.beside.ended(outputs)
        if call.name in self.positions:
            rows = output_rows(call, outputs, self.examples, positions=self.positions[call.name])
            self.outputs[call.name] = rows
        return outputs

    def other(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        outputs = run()
        self.beside.ended(outputs)
        return outputs


@final
class _Fitting(WeightCalls):
    """Inside, every consumer of the cut network is refitted when its inputs are there."""

    def __init__(self, cut: Cut, noted: _Noted, inputs: Any, device: torch.device) -> None:
        cut.network.to(device)
        super().__init__(cut.network, tuple(noted.consumers))
        self._cut, self._noted, self._run = cut, noted, None
        at = branches(cut.network, tuple(noted.consumers), _few(inputs))
        self._beside = Beside(at, noted.consumers, noted.examples, noted.positions)
        self._norms = NormsBehind(cut.network)
        lost = {
            layout.name
            for layout in cut.space.tensors
            if layout.name in cut.kept and any(cut.kept[layout.name][dim] is not None for dim in layout.reads)
        }
        told = dict.fromkeys(noted.several, "it is called several times")
        self.left_alone = {
            name: told.get(name, "no call is seen that multiplies by it alone")
            for name in sorted(lost)
            if name not in noted.consumers
        }

    def called(self, call: Call, run: Callable[[], Tensor]) -> Tensor:
        if call.name in self._noted.outputs:
            reason = self._refit(call)
            if reason:
                self.left_alone[call.name] = reason
        outputs = run()
        self._beside.ended(outputs)
        return outputs

    def other(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        self._norms.before(func, args, kwargs)
        outputs = run()
        self._beside.ended(outputs)
        return outputs

    def _refit(self, call: Call) -> str:
        """Refit one consumer; why not, where it is left alone."""
        name, noted = call.name, self._noted
        weight = tensor_of(self._cut.network, name)
        chosen = _kept_outputs(self._cut, noted.consumers[name])
        if chosen is None:
            return "its groups keep different outputs"
        target = noted.outputs[name]
        target = target if chosen is True else target.index_select(1, chosen.to(target.device))  # type: ignore[union-attr]
        target = target + self._lacking(name, chosen)
        rows = input_rows(call, noted.examples, positions=noted.positions[name])
        if not bool(rows.isfinite().all()) or not bool(target.isfinite().all()):
            return "it sees values that are not finite"
        consumer = noted.consumers[name]
        matrix = weight_matrix(call, weight).double()
        target = target.double().unflatten(1, matrix.shape[:2])
        made, shift = _solved(rows, target, matrix, centred=consumer.bias is not None or consumer.norm is not None)
        weight.copy_(matrix_weight(call, made, weight))
        if consumer.bias is not None:
            tensor_of(self._cut.network, consumer.bias).copy_(shift)
            shift = torch.zeros_like(shift)
        if consumer.norm is not None:
            kept = self._cut.kept[consumer.norm.mean][0]
            self._norms.expect(consumer.norm, noted.norms[name].kept(kept), shift)
        return ""

    def _lacking(self, name: str, chosen: Any) -> Tensor | float:
        """(rows, outputs) what the other side of the sum lacks, as this consumer would have to give it."""
        dense, now = self._noted.beside.rows.get(name), self._beside.rows.get(name)
        if dense is None or now is None:
            return 0.0
        dense = dense if chosen is True else dense.index_select(1, chosen.to(dense.device))
        if dense.shape != now.shape:
            return 0.0
        lacking = dense - now
        norm = self._noted.consumers[name].norm
        if norm is None:
            return lacking
        return lacking * self._noted.norms[name].kept(self._cut.kept[norm.mean][0]).inverse


def _solved(rows: Tensor, target: Tensor, matrix: Tensor, *, centred: bool) -> tuple[Tensor, Tensor]:
    """(groups, O, D) weights, and (outputs,) the constant; of rows (n, groups, D) and targets (n, groups, O)."""
    n, groups, size = rows.shape
    mean_in = rows.mean(dim=0, dtype=torch.float64) if centred else matrix.new_zeros(groups, size)
    mean_out = target.mean(dim=0) if centred else target.new_zeros(target.shape[1:])
    second, cross = matrix.new_zeros(groups, size, size), matrix.new_zeros(groups, target.shape[2], size)
    for some, wanted in zip(rows.split(_CHUNK), target.split(_CHUNK), strict=True):
        u = (some.double() - mean_in).transpose(0, 1)
        second += u.transpose(1, 2) @ u
        cross += (wanted - mean_out).permute(1, 2, 0) @ u
    second, cross = second / n, cross / n
    added = ridge(second, n)
    factor = torch.linalg.cholesky(with_ridge(second, added))
    made = torch.cholesky_solve((cross + added[:, None, None] * matrix).transpose(1, 2), factor).transpose(1, 2)
    return made, (mean_out - (made @ mean_in[:, :, None])[..., 0]).flatten()


def _kept_outputs(cut: Cut, consumer: Consumer) -> Any:
    """Outputs of the dense call that survive, True for all; None where they are no whole parts of its groups."""
    kept = cut.kept[consumer.name]
    writes = 1 - consumer.reads
    if consumer.call.kind == "transposed" and consumer.call.groups > 1:
        return True if kept[0] is None and kept[1] is None else None
    return True if kept[writes] is None else kept[writes]


def _row(call: Call, weight: Tensor) -> int:
    """Values that one output of all groups is computed from."""
    matrix = weight_matrix(call, weight)
    return matrix.shape[0] * matrix.shape[2]
