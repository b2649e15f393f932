"""A table of networks of all widths, each trained from scratch with several seeds (the format of Channel-Bench-Macro).

Keys are strings of digits, one per group: the share of the full width in units of the largest digit. Values have "acc"
(one accuracy per seed) and "flops".
"""

from __future__ import annotations

import json
from functools import cached_property
from itertools import combinations_with_replacement
from pathlib import Path
from typing import final

import numpy as np

from autoprune.cost.budget.budget import BAND
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import BoolArray, FloatArray, IntArray, SearchSpace, WidthGroup, Widths
from autoprune.space.sizes import AffineSize, Operation
from search_problems.problem import Experiment, Problem


@final
class Table:
    """The rows of a table file.

    Attributes:
        widths: (N, G) digits.
        accuracies: (N, S), one column per training; their order says nothing.
        flops: (N,) multiply-adds.
        space: one group per digit; its FLOPs are the quadratic form that gives those of the table exactly.
        smoothed: (N,) accuracies by a quadratic model in log widths, fitted to all trainings of all rows.
    """

    def __init__(self, path: Path) -> None:
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            keys = sorted(rows)
            self.widths: IntArray = np.array([[int(digit) for digit in key] for key in keys])
            self.accuracies: FloatArray = np.array([rows[key]["acc"] for key in keys], dtype=np.float64)
            self.flops: FloatArray = np.array([rows[key]["flops"] for key in keys], dtype=np.float64)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SystemExit(
                f'{path} is no table of widths: {type(error).__name__}: {error}. Give a JSON file {{"1234": {{"acc": '
                f'[one accuracy per seed], "flops": multiply-adds}}, …}}'
            ) from error
        if self.accuracies.ndim != 2 or self.accuracies.shape[1] < 2:
            raise SystemExit(f"{path}: every row needs two accuracies or more, one to search and one to judge")
        self.row = {tuple(map(int, widths)): index for index, widths in enumerate(self.widths)}
        self.space = self._space(path)
        pairs = _pairs(np.log(self.widths))
        coefficients = np.linalg.lstsq(pairs, self.accuracies.mean(axis=1), rcond=None)[0]
        self.smoothed: FloatArray = pairs @ coefficients

    def budget_of(self, digit: int) -> tuple[BudgetedSpace, Widths]:
        """The space under the FLOPs of a uniform row, and that row."""
        uniform = (digit,) * self.widths.shape[1]
        if uniform not in self.row:
            raise SystemExit(f"the table has no uniform row of width {digit}")
        return BudgetedSpace(self.space, {"flops": float(self.flops[self.row[uniform]])}), uniform

    def highest_inside(self, domain: BudgetedSpace) -> float:
        """Highest accuracy by the model of the rows inside the budget."""
        return float(self.smoothed[domain.feasible(self.widths)].max())

    def noise(self, domain: BudgetedSpace) -> float:
        """Standard deviation of one training, over the rows that a search at this budget may propose."""
        return float(np.sqrt(self.accuracies[self._at(domain)].var(axis=1, ddof=1).mean()))

    def residual(self, domain: BudgetedSpace) -> float:
        """Standard deviation of those rows' mean accuracies around the model."""
        at = self._at(domain)
        return float(np.sqrt(((self.accuracies[at].mean(axis=1) - self.smoothed[at]) ** 2).mean()))

    def _at(self, domain: BudgetedSpace) -> BoolArray:
        usage = domain.budget.usage(self.widths)
        return (usage >= BAND) & (usage <= 1.0)

    def _space(self, path: Path) -> SearchSpace:
        groups = tuple(
            WidthGroup(f"g{index}", int(column.max()), tuple(map(int, np.unique(column))), (f"g{index}",))
            for index, column in enumerate(self.widths.T)
        )
        sizes = [AffineSize(0, ((index, 1),)) for index in range(len(groups))]
        terms = [(), *((size,) for size in sizes), *combinations_with_replacement(sizes, 2)]
        found = np.linalg.lstsq(_pairs(self.widths.astype(np.float64)), self.flops, rcond=None)[0]
        whole = found.round()
        if np.abs(_pairs(self.widths.astype(np.float64)) @ whole - self.flops).max() > 0.5:
            raise SystemExit(f"{path}: the FLOPs of this table are not a sum of products of two widths")
        operations = [Operation("table", "conv", int(c), term) for c, term in zip(whole, terms, strict=True) if c]
        return SearchSpace(groups, (), tuple(operations))


@final
class TableProblem(Problem):
    """Search at the FLOPs of one uniform row, with the accuracy of one random seed per row; the others judge."""

    unit = "points"

    def __init__(self, table: Table, digit: int) -> None:
        self.table = table
        self.domain, self._uniform = table.budget_of(digit)
        self.name = f"table, uniform {digit / table.widths.max():g}"

    @property
    def uniform(self) -> Widths:
        """The row of equal digits whose FLOPs are the budget."""
        return self._uniform

    def experiment(self, seed: int) -> Experiment:
        """Draw the seed that is shown of every row."""
        accuracies, row = self.table.accuracies, self.table.row
        shown = np.random.default_rng(seed).integers(accuracies.shape[1], size=len(accuracies))
        unseen = np.array([np.delete(values, column).mean() for values, column in zip(accuracies, shown, strict=True)])
        reference, smoothed = unseen[row[self._uniform]], self.table.smoothed
        return Experiment(
            score=lambda widths: float(accuracies[row[widths], shown[row[widths]]]),
            gain=lambda widths: float(unseen[row[widths]] - reference),
            expected=lambda widths: float(smoothed[row[widths]] - smoothed[row[self._uniform]]),
        )

    @cached_property
    def ceiling(self) -> float:
        """Best member by a quadratic model of all trainings of all rows, less uniform's own mean accuracy."""
        uniform = self.table.accuracies[self.table.row[self._uniform]].mean()
        return float(self.table.highest_inside(self.domain) - uniform)

    @cached_property
    def luck(self) -> float:
        """How much lower uniform's own trainings came out than the model of all rows says: part of every gain."""
        index = self.table.row[self._uniform]
        return float(self.table.smoothed[index] - self.table.accuracies[index].mean())

    @cached_property
    def row_luck(self) -> float:
        """Standard deviation of what luck the mean of a row's trainings has."""
        return self.table.noise(self.domain) / float(np.sqrt(self.table.accuracies.shape[1]))


@final
class RedrawnProblem(Problem):
    """The same search on trainings that are drawn anew in every repetition, so that no row is lucky in all of them.

    The accuracy of a row is what the quadratic model of the whole table says, plus the noise of one training. As the
    truth is known, it judges the answers.
    """

    unit = "points"

    def __init__(self, table: Table, digit: int) -> None:
        self._table = table
        self.domain, self._uniform = table.budget_of(digit)
        self.name = f"table, uniform {digit / table.widths.max():g}, trained anew"

    @property
    def uniform(self) -> Widths:
        """The row of equal digits whose FLOPs are the budget."""
        return self._uniform

    def experiment(self, seed: int) -> Experiment:
        """Train every row once more."""
        truth, row = self._table.smoothed, self._table.row
        noise = np.random.default_rng(seed).normal(scale=self._table.noise(self.domain), size=len(truth))

        def gain(widths: Widths) -> float:
            return float(truth[row[widths]] - truth[row[self._uniform]])

        return Experiment(score=lambda widths: float(truth[row[widths]] + noise[row[widths]]), gain=gain, expected=gain)

    @cached_property
    def ceiling(self) -> float:
        """Gain of the best member."""
        return self._table.highest_inside(self.domain) - float(self._table.smoothed[self._table.row[self._uniform]])


def _pairs(columns: FloatArray) -> FloatArray:
    """(N, 1 + G + G (G + 1) / 2) constant, columns and their products."""
    products = [columns[:, i] * columns[:, j] for i, j in combinations_with_replacement(range(columns.shape[1]), 2)]
    return np.column_stack([np.ones(len(columns)), columns, *products])
