"""Sequential least squares: each consumer refitted on what the cut network gives it, in the order of the graph.

He, Zhang and Sun 2017, Channel Pruning, arXiv 1707.06168, sections 3.1 and 3.2: inputs are taken from the network as it
is cut, targets from the dense one, and the last layer of a branch also makes up for what its shortcut lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.data.batch import Batch
from autoprune.inherit.base import Changes, Inheritance, Statistics
from autoprune.inherit.dense_targets import FEW, DenseTargets
from autoprune.inherit.fitting import (
    IMAGES,
    calibration,
    check_images,
    kept_outputs,
    lost_inputs,
    ridge,
    too_wide,
    with_ridge,
)
from autoprune.inherit.norms_on_the_way import NormsOnTheWay
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import tensor_of
from autoprune.statistics.calls import WeightCall, WeightCalls
from autoprune.statistics.rows import input_rows, matrix_weight, weight_matrix
from autoprune.statistics.running import evaluating
from autoprune.statistics.sums import Beside, branches

_METHOD = "sequential_least_squares"
_CHUNK = 4096
"""Rows that are multiplied at once."""


@final
class SequentialLeastSquares(Inheritance):
    """Refit every consumer, one after the other, on the inputs that the network refitted so far gives it.

    One pass of the dense network notes what each consumer gives (t), one pass of the cut one fits and goes on: at each
    consumer its inputs u' are there, those of the layers before it already refitted, and its weights become

        W' = (E[t u'^T] + l W) (E[u' u'^T] + l I)^-1,    W the weights that the slice left, l as in `fitting.ridge`,

    centred where a bias or the batch norm right behind takes the constant. Depthwise convolutions are refitted, too:
    what they read has changed. Where the output goes into a sum, t also holds what the other side of the sum lacks, if
    that was computed before. Norms on the way: see `norms_on_the_way`; `bn_recalibration` after it changes next to
    nothing.

    Left as they were: layers that are called several times, recurrent ones, those of more than 20,000 inputs, and those
    that see values that are not finite.

    Data: inputs; batches of other sizes than the first one are left out. Cost: one pass of the dense network in all,
    and for each candidate a pass of its own and a factorisation for each consumer. Memory: all examples run at once;
    targets, up to 32,768 rows of each layer's outputs, stay; D^2 numbers for one consumer of D inputs at a time.

    Args:
        images: calibration examples; no labels.

    Raises:
        ConfigError: no number of images, or no calibration inputs.
        EvaluationError: no batch with finite values only.
    """

    changes: ClassVar[Changes] = "weights"
    fits_constants: ClassVar[bool] = True

    def __init__(self, *, images: int = IMAGES) -> None:
        self._images = check_images(_METHOD, images)

    def prepare(self, statistics: Statistics) -> None:
        """See `Inheritance.prepare`."""
        calibration(_METHOD, statistics, self._images)

    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> None:
        """See `Inheritance.apply`."""
        self.left_alone = {}
        if cut.widths == cut.space.full:
            return
        batches, positions = calibration(_METHOD, statistics, self._images)
        inputs, device = Batch(together(batches)).to(statistics.device), statistics.device
        targets = statistics.of_dense(
            (_METHOD, self._images), dense, lambda: DenseTargets(dense, cut.space, inputs, positions, device)
        )
        cut.network.to(device)
        fitting = _Fitting(cut, dense, targets, inputs)
        with evaluating(cut.network), fitting:
            inputs.outputs(cut.network)
        self.left_alone = fitting.left_alone


def together(batches: Sequence[Any]) -> Any:
    """Batches of inputs as one; those whose examples have another size than in the first are left out.

    Of examples whose sizes differ within a batch, lists of images, the first batch is taken: as one they would be
    padded to the largest of all.
    """
    if Batch(batches[0]).is_ragged:
        return batches[0]
    leaves, specs = zip(*(pytree.tree_flatten(batch) for batch in batches), strict=True)
    sizes = [[value.shape[1:] if isinstance(value, Tensor) else value for value in some] for some in leaves]
    alike = [some for some, size in zip(leaves, sizes, strict=True) if size == sizes[0]]
    joined = [
        torch.cat(parts) if isinstance(parts[0], Tensor) and parts[0].ndim else parts[0]
        for parts in zip(*alike, strict=True)
    ]
    return pytree.tree_unflatten(joined, specs[0])


@final
class _Fitting(WeightCalls):
    """Inside, every consumer of the cut network is refitted when its inputs are there."""

    def __init__(self, cut: Cut, dense: nn.Module, targets: DenseTargets, inputs: Batch) -> None:
        super().__init__(cut.network, tuple(targets.consumers))
        self._cut, self._dense, self._targets = cut, dense, targets
        at = branches(cut.network, tuple(targets.consumers), inputs.first(FEW).inputs)
        self._beside = Beside(at, targets.consumers, targets.examples, targets.positions)
        self._norms = NormsOnTheWay(cut, targets)
        told = dict.fromkeys(targets.several, "it is called several times")
        self.left_alone = {
            name: told.get(name, "no call is seen that multiplies by it alone")
            for name in lost_inputs(cut)
            if name not in targets.consumers
        }

    def called(self, call: WeightCall, run: Callable[[], Tensor]) -> Tensor:
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

    def _refit(self, call: WeightCall) -> str:
        """Refit one consumer; why not, where it is left alone."""
        name, targets = call.name, self._targets
        weight, consumer = tensor_of(self._cut.network, name), targets.consumers[call.name]
        by_group = kept_outputs(self._cut, consumer.call, tensor_of(self._dense, name))
        if by_group is None or len(by_group) != call.groups:
            return "its groups keep different outputs"
        reason = too_wide(call, self._cut.network)
        if reason:
            return reason
        all_outputs = targets.outputs[name]
        own = all_outputs.shape[1] // consumer.call.groups
        chosen = torch.cat([group * own + some for group, some in by_group]).to(all_outputs.device)
        target = all_outputs[:, chosen] + self._lacking(name, chosen)
        rows = input_rows(call, targets.examples, positions=targets.positions[name])
        matrix = weight_matrix(call, weight).double()
        centred = consumer.bias is not None or consumer.norm is not None
        solved = _solved(rows, target.reshape(len(target), *matrix.shape[:2]), matrix, centred=centred)
        if solved is None:
            return "it sees values that are not finite"
        made, constant = solved
        weight.copy_(matrix_weight(call, made, weight))
        if consumer.bias is not None:
            tensor_of(self._cut.network, consumer.bias).copy_(constant)
            constant = torch.zeros_like(constant)
        if consumer.norm is not None:
            kept = self._cut.kept[consumer.norm.mean][0]
            self._norms.expect(consumer.norm, targets.behind[name].kept(kept), constant)
        return ""

    def _lacking(self, name: str, chosen: Tensor) -> Tensor | float:
        """(rows, outputs) what the other side of the sum lacks, as this consumer would have to give it."""
        dense, now = self._targets.beside.rows.get(name), self._beside.rows.get(name)
        if dense is None or now is None:
            return 0.0
        dense = dense[:, chosen]
        if dense.shape != now.shape:
            return 0.0
        norm = self._targets.consumers[name].norm
        if norm is None:
            return dense - now
        return (dense - now) * self._targets.behind[name].kept(self._cut.kept[norm.mean][0]).inverse


def _solved(rows: Tensor, target: Tensor, matrix: Tensor, *, centred: bool) -> tuple[Tensor, Tensor] | None:
    """(groups, O, D) weights, and (outputs,) the constant; of rows (n, groups, D) and targets (n, groups, O).

    None where rows or targets are not finite: then their products are not, either.
    """
    (n, groups, size), outputs = rows.shape, target.shape[2]
    second, cross = matrix.new_zeros(groups, size, size), matrix.new_zeros(groups, outputs, size)
    mean_in, mean_out = matrix.new_zeros(groups, size), matrix.new_zeros(groups, outputs)
    for some, wanted in zip(torch.split(rows, _CHUNK), torch.split(target, _CHUNK), strict=True):
        u, t = some.double().transpose(0, 1), wanted.double().transpose(0, 1)
        second += u.transpose(1, 2) @ u / n
        cross += t.transpose(1, 2) @ u / n
        if centred:
            mean_in += u.sum(dim=1) / n
            mean_out += t.sum(dim=1) / n
    second -= mean_in[:, :, None] * mean_in[:, None]
    cross -= mean_out[:, :, None] * mean_in[:, None]
    if not bool(second.isfinite().all() & cross.isfinite().all()):
        return None
    added = ridge(second, n)
    factor = torch.linalg.cholesky(with_ridge(second, added))
    made = torch.cholesky_solve((cross + added[:, None, None] * matrix).transpose(1, 2), factor).transpose(1, 2)
    return made, (mean_out - (made @ mean_in[:, :, None])[..., 0]).flatten()
