"""Least squares: the consumers of cut channels are refitted, so that they still give what they gave.

The idea is that of He, Zhang and Sun 2017, Channel Pruning, arXiv 1707.06168, section 3.1 (ii), and of AMC's code (He
et al. 2018): W' minimises the error of the outputs. Here it is solved from second moments of the dense network, so that a
candidate costs triangular solves and no pass over data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, final, get_args

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError, suggest
from autoprune.inherit.base import Inheritance, Statistics
from autoprune.inherit.fitting import IMAGES, calibration, check_images, expanded, ridge, with_ridge
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import tensor_of
from autoprune.statistics.moments import Consumer, MomentKind, Moments, gather_moments
from autoprune.statistics.rows import matrix_weight, weight_matrix

_METHOD = "least_squares"


@final
class LeastSquares(Inheritance):
    """Refit every consumer on the inputs that the dense network gives it, with those of the cut channels left out.

    With second moments S of the inputs, kept inputs k and a ridge l (see `fitting.ridge`) the weights are

        W' = W (S + l I)[:, k] ((S + l I)[k, k])^-1,

    the minimiser of E |W u - W' u[k]|^2 + l |W' - W[:, k]|^2: never worse than the plain slice on its own data, and the
    slice itself where all inputs stay. S is centred where a bias, or the batch norm right behind, takes the constant.
    Channels are kept in the order of their importance, so one Cholesky factor of S in that order serves every width.

    Convolutions (plain, grouped, transposed), linear layers, matrix products and projections of attention are refitted.
    Depthwise convolutions read no other channel than their own: nothing is missing. Recurrent layers are left alone.

    Args:
        moments: "patch": moments of all inputs of an output, (C k^2)^2 numbers for each k x k convolution, the exact
            fit. "channel": of the channels of single pixels, C^2 numbers, the same map for each tap of the kernel.
        images: calibration examples that the moments are gathered on, once; no labels.

    Raises:
        ConfigError: other moments than these, or no number of images.
    """

    changes = "weights"

    def __init__(self, *, moments: MomentKind = "patch", images: int = IMAGES) -> None:
        if moments not in get_args(MomentKind):
            kinds = " or ".join(get_args(MomentKind))
            raise ConfigError(
                f"{_METHOD}: moments must be {kinds}, got {moments!r}.{suggest(str(moments), get_args(MomentKind))}"
            )
        self._moments, self._images = moments, check_images(_METHOD, images)

    def prepare(self, statistics: Statistics) -> None:
        """See `Inheritance.prepare`."""
        calibration(_METHOD, statistics, self._images)

    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> None:
        """See `Inheritance.apply`."""
        fits = statistics.of_dense(
            (_METHOD, self._moments, self._images), dense, lambda: self._gather(cut, dense, statistics)
        )
        done: set[str] = set()
        with torch.no_grad():
            for name, fit in fits.items():
                if name in cut.kept and cut.kept[name][fit.consumer.reads] is not None:
                    done |= {name} if fit.refit(cut, dense) else set()
        lost = {
            layout.name
            for layout in cut.space.tensors
            if layout.name in cut.kept and any(cut.kept[layout.name][dim] is not None for dim in layout.reads)
        }
        why = "no call is seen that multiplies by it alone, or it reads no whole channels"
        self.left_alone = dict.fromkeys(sorted(lost - done), why)

    def _gather(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> Mapping[str, _Fit]:
        batches, positions = calibration(_METHOD, statistics, self._images)
        found = gather_moments(dense, cut.space, batches, self._moments, positions=positions, device=statistics.device)
        return {name: _Fit(moments) for name, moments in found.items()}


Side = Literal["bias", "norm", "none"]


@final
@dataclass(eq=False)
class _Fit:
    """What candidates need of one consumer; factors are made when they are first asked for."""

    moments: Moments
    _factors: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def consumer(self) -> Consumer:
        return self.moments.consumer

    @cached_property
    def side(self) -> Side:
        """What takes the constant of the fit."""
        if self.consumer.bias is not None:
            return "bias"
        return "norm" if self.consumer.norm is not None else "none"

    @cached_property
    def second(self) -> Tensor:
        """(groups, D, D) with the ridge."""
        second = self.moments.second if self.side == "none" else self.moments.centred
        return with_ridge(second, ridge(second, self.moments.count))

    @property
    def taps(self) -> int:
        """Columns of a weight's matrix for each entry of the moments' axis."""
        return math.prod(self.consumer.call.kernel) if self.moments.kind == "channel" else 1

    def refit(self, cut: Cut, dense: nn.Module) -> bool:
        """Refit it in the cut network; False where it is not made of whole channels of each group."""
        call, name = self.consumer.call, self.consumer.name
        kept = _kept_inputs(cut, self.consumer)
        rows = _kept_rows(cut, self.consumer, tensor_of(dense, name))
        if kept is None or rows is None:
            return False
        matrix = weight_matrix(call, tensor_of(dense, name)).detach().double()
        taps = 1 if self.moments.kind == "channel" else math.prod(call.kernel)
        columns = expanded(kept, taps).to(matrix.device)
        target = tensor_of(cut.network, name)
        fitted, shift = [], []
        for group, chosen in rows:
            dense_rows = matrix[group][chosen.to(matrix.device)]
            made = self._solved(cut, group, dense_rows, kept, columns)
            fitted.append(made)
            shift.append(self._constant(group, dense_rows, made, columns))
        target.copy_(matrix_weight(replace(call, groups=len(rows)), torch.stack(fitted), target))
        self._put(cut, torch.cat(shift))
        return True

    def _solved(self, cut: Cut, group: int, rows: Tensor, kept: Tensor, columns: Tensor) -> Tensor:
        """(outputs, kept D) weights of one group."""
        order = cut.order(self.consumer.name, self.consumer.reads) if len(self.second) == 1 else None
        if order is None:
            second = self.second[group]
            factor = torch.linalg.cholesky(second[columns][:, columns])
            cross = second[:, columns]
            return self._through(rows, lambda flat: torch.cholesky_solve((flat @ cross).T, factor).T)
        ordered = expanded(order, len(columns) // len(kept))
        if group not in self._factors:
            second = self.second[group][ordered][:, ordered]
            self._factors[group] = torch.linalg.cholesky(second), self.second[group][:, ordered].contiguous()
        factor, cross = self._factors[group]
        n = len(columns)
        front = ordered[:n]  # the same columns as `columns`, in another order
        back = torch.argsort(front)
        return self._through(
            rows, lambda flat: torch.cholesky_solve((flat @ cross[:, :n]).T, factor[:n, :n]).T[:, back]
        )

    def _through(self, rows: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        """Solve for rows (O, D); of moments of channels for each tap of the kernel by itself."""
        if self.taps == 1:
            return solve(rows)
        by_tap = rows.unflatten(1, (-1, self.taps)).transpose(1, 2)  # (O, K, C)
        return solve(by_tap.flatten(0, 1)).unflatten(0, by_tap.shape[:2]).transpose(1, 2).flatten(1)

    def _constant(self, group: int, rows: Tensor, made: Tensor, columns: Tensor) -> Tensor:
        """(outputs,) what the dense weights give on average, less what the fitted ones do."""
        mean = self.moments.mean[group]
        if self.taps > 1:
            rows, made = (w.unflatten(1, (-1, self.taps)).sum(dim=2) for w in (rows, made))
        return rows @ mean - made @ mean[columns]

    def _put(self, cut: Cut, shift: Tensor) -> None:
        """Give the constant to the bias, or take it from the running mean that is subtracted behind."""
        if self.side == "bias":
            assert self.consumer.bias is not None  # so it is called
            tensor_of(cut.network, self.consumer.bias).add_(shift)
        elif self.side == "norm":
            assert self.consumer.norm is not None
            tensor_of(cut.network, self.consumer.norm.mean).sub_(shift)


def _kept_inputs(cut: Cut, consumer: Consumer) -> Tensor | None:
    """Channels of one group that survive; None where those of its groups differ."""
    call, kept = consumer.call, cut.kept[consumer.name][consumer.reads]
    if kept is None or call.kind != "transposed" or call.groups == 1:
        return kept
    return None


def _kept_rows(cut: Cut, consumer: Consumer, dense: Tensor) -> list[tuple[int, Tensor]] | None:
    """(group, its outputs that survive) for each group that does; None where groups keep different numbers."""
    call = consumer.call
    writes = 1 - consumer.reads
    total, kept = dense.shape[writes], cut.kept[consumer.name][writes]
    kept = torch.arange(total) if kept is None else kept
    groups = call.groups if call.kind == "convolution" else 1
    own = total // groups
    rows = [(g, kept[kept // own == g] - g * own) for g in range(groups)]
    rows = [(g, chosen) for g, chosen in rows if len(chosen)]
    return rows if len({len(chosen) for _, chosen in rows}) == 1 else None
