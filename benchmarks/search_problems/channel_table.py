"""A table of networks of all widths, each trained from scratch with several seeds (the format of Channel-Bench-Macro).

Keys are strings of digits, one per group: the share of the full width in units of the largest digit. Values have "acc"
(one accuracy per seed) and "flops".
"""

from __future__ import annotations

import json
from functools import cached_property
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np

from autoprune.cost.repair import BudgetedSpace
from autoprune.space.groups import FloatArray, IntArray, SearchSpace, WidthGroup, Widths
from autoprune.space.sizes import AffineSize, Operation
from search_problems.problem import Experiment, Problem


class Table:
    """The rows of a table file.

    Attributes:
        widths: (N, G) digits.
        accuracies: (N, S), one column per training; their order says nothing.
        flops: (N,) multiply-adds.
        space: one group per digit; its FLOPs are the quadratic form that gives those of the table exactly.
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


class TableProblem(Problem):
    """Search at the FLOPs of one uniform row, with the accuracy of one random seed per row; the others judge."""

    unit = "points"

    def __init__(self, table: Table, digit: int) -> None:
        self._table = table
        self._uniform = (digit,) * table.widths.shape[1]
        if self._uniform not in table.row:
            raise SystemExit(f"the table has no uniform row of width {digit}")
        limit = float(table.flops[table.row[self._uniform]])
        self.domain = BudgetedSpace(table.space, {"flops": limit})
        self.name = f"table, uniform {digit / table.widths.max():g}"

    @property
    def uniform(self) -> Widths:
        """The row of equal digits whose FLOPs are the budget."""
        return self._uniform

    def experiment(self, seed: int) -> Experiment:
        """Draw the seed that is shown of every row."""
        accuracies, row = self._table.accuracies, self._table.row
        shown = np.random.default_rng(seed).integers(accuracies.shape[1], size=len(accuracies))
        unseen = np.array([np.delete(values, column).mean() for values, column in zip(accuracies, shown, strict=True)])
        reference, smoothed = unseen[row[self._uniform]], self._table.smoothed
        return Experiment(
            score=lambda widths: float(accuracies[row[widths], shown[row[widths]]]),
            gain=lambda widths: float(unseen[row[widths]] - reference),
            expected=lambda widths: float(smoothed[row[widths]] - smoothed[row[self._uniform]]),
        )

    @cached_property
    def ceiling(self) -> float:
        """Best member by a quadratic model of all trainings of all rows, less uniform's own mean accuracy."""
        inside = self._table.flops <= self._table.flops[self._table.row[self._uniform]]
        uniform = self._table.accuracies[self._table.row[self._uniform]].mean()
        return float(self._table.smoothed[inside].max() - uniform)

    @cached_property
    def luck(self) -> float:
        """How much lower uniform's own trainings came out than the model of all rows says: part of every gain."""
        index = self._table.row[self._uniform]
        return float(self._table.smoothed[index] - self._table.accuracies[index].mean())


def _pairs(columns: FloatArray) -> FloatArray:
    """(N, 1 + G + G (G + 1) / 2) constant, columns and their products."""
    products = [columns[:, i] * columns[:, j] for i, j in combinations_with_replacement(range(columns.shape[1]), 2)]
    return np.column_stack([np.ones(len(columns)), columns, *products])
