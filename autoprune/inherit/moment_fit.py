"""The fit of one consumer from second moments of its inputs in the dense network."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor

from autoprune.inherit.fitting import expanded, kept_inputs, kept_outputs, ridge, with_ridge
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import tensor_of
from autoprune.statistics.consumers import Consumer
from autoprune.statistics.moments import Moments
from autoprune.statistics.rows import matrix_weight, weight_matrix

Side: TypeAlias = Literal["bias", "norm", "none"]


@final
class MomentFit:
    """What all candidates need of one consumer: S + l I, W (S + l I), and a factor of the former (see `LeastSquares`).

    Args:
        moments: of its inputs.
        weight: of the dense network.
    """

    def __init__(self, moments: Moments, weight: Tensor) -> None:
        self.consumer: Consumer = moments.consumer
        self._weight = weight.detach()
        call, kernel = self.consumer.call, math.prod(self.consumer.call.kernel)
        self._spread = kernel if moments.kind == "patch" else 1  # columns of the moments for each channel
        self._taps = kernel if moments.kind == "channel" else 1  # rows of the fit for each output
        second = moments.second if self._side == "none" else moments.centred
        self._second = with_ridge(second, ridge(second, moments.count))
        matrix = weight_matrix(call, self._weight).to(second)
        split = matrix.reshape(*matrix.shape[:2], -1, self._taps)  # (groups, O, D, K)
        self._rows = split.transpose(2, 3).flatten(1, 2)  # (groups, O K, D)
        self._products = self._rows @ self._second
        self._mean = moments.mean
        self._factors: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def _side(self) -> Side:
        """What takes the constant of the fit."""
        if self.consumer.bias is not None:
            return "bias"
        return "norm" if self.consumer.norm is not None else "none"

    def refit(self, cut: Cut) -> bool:
        """Refit it in the cut network; False where what is left is no even part of each of its groups."""
        call, name = self.consumer.call, self.consumer.name
        kept, outputs = kept_inputs(cut, call), kept_outputs(cut, call, self._weight)
        if kept is None or outputs is None:
            return False
        columns = expanded(kept, self._spread)
        order = cut.order(name, self.consumer.reads) if len(self._second) == 1 else None
        fitted, shifts = [], []
        for group, chosen in outputs:
            rows = expanded(chosen, self._taps).to(self._second.device)
            made = self._solved(group, rows, columns, order)
            shift = self._rows[group, rows] @ self._mean[group] - made @ self._mean[group, columns.to(rows.device)]
            shifts.append(shift.reshape(len(chosen), self._taps).sum(dim=1))
            fitted.append(made.reshape(len(chosen), self._taps, -1).transpose(1, 2).flatten(1))
        target = tensor_of(cut.network, name)
        target.copy_(matrix_weight(replace(call, groups=len(outputs)), torch.stack(fitted), target))
        self._put(cut, torch.cat(shifts))
        return True

    def _solved(self, group: int, rows: Tensor, columns: Tensor, order: Tensor | None) -> Tensor:
        """(rows, columns) weights of one group; where there is an order, one factor serves every width."""
        second, products = self._second[group], self._products[group, rows]
        if order is not None:
            ordered = expanded(order, self._spread)
            first = ordered[: len(columns)]
            back = torch.argsort(first)
            if torch.equal(first[back], columns):
                factor = self._factor(group, ordered)[: len(columns), : len(columns)]
                solved = torch.cholesky_solve(products[:, first.to(rows.device)].T, factor).T
                return solved[:, back.to(rows.device)]
        at = columns.to(rows.device)
        factor = torch.linalg.cholesky(second[at][:, at])
        return torch.cholesky_solve(products[:, at].T, factor).T

    def _factor(self, group: int, ordered: Tensor) -> Tensor:
        known = self._factors.get(group)
        if known is None or not torch.equal(known[0], ordered):  # another criterion, another order
            at = ordered.to(self._second.device)
            known = self._factors[group] = ordered, torch.linalg.cholesky(self._second[group][at][:, at])
        return known[1]

    def _put(self, cut: Cut, shift: Tensor) -> None:
        """Give the constant to the bias, or take it from the running mean that is subtracted behind."""
        if self.consumer.bias is not None:
            bias = tensor_of(cut.network, self.consumer.bias)
            bias.add_(shift.to(bias.device))
        elif self.consumer.norm is not None:
            mean = tensor_of(cut.network, self.consumer.norm.mean)
            mean.sub_(shift.to(mean.device))
