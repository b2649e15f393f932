"""The networks whose widths are ranked, and the vectors of widths: the same for every evaluator and every training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from reconstruction.bases import BASES, TEST_IMAGES, trained
from torch import nn

from autoprune.controllers.parts.proposals import as_widths
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.data.base import DataSplits
from autoprune.importance.evidence import Calibration
from autoprune.importance.members import rank_channels
from autoprune.space.cutting.slicing import Ranking
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.origin import in_form
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify

NETWORKS = ("resnet20", "mobilenetv2")
VECTORS = {25: 40, 50: 24}
"""Percent of the FLOPs -> how many vectors."""
_BAND = 0.98
"""Of its budget that a vector uses at least."""
_SPREAD = 0.5
"""Standard deviation of the logarithm of a width around uniform, for every second vector."""


@final
@dataclass(frozen=True, eq=False)
class Ranked:
    """A trained network with its space.

    Attributes:
        name: of the network.
        model: in the form of its space; only read.
        space: its space.
        ranking: of channels, by l2.
        splits: its data; validation is what evaluators see, test what trained networks are scored on.
        example: one input.
    """

    name: str
    model: nn.Module
    space: SearchSpace
    ranking: Ranking
    splits: DataSplits
    example: torch.Tensor

    def domain(self, budget: int) -> BudgetedSpace:
        """The space under so many percent of the FLOPs."""
        return BudgetedSpace(self.space, {"flops": f"{budget}%"})

    @cached_property
    def vectors(self) -> dict[int, list[Widths]]:
        """Percent of the FLOPs -> widths, all within 2 % of it and different; the first is uniform.

        Every second one is drawn as random search draws, the others near uniform, where searches end.
        """
        return {budget: _drawn(self.domain(budget), count) for budget, count in VECTORS.items()}


def ranked(name: str, bases: Path, *, data: Path | None) -> Ranked:
    """Read a base network or train it, trace it and rank its channels."""
    base = BASES[name]
    made = trained(name, bases, seed=0, data=data)
    splits = base.load(path=data, train_limit=base.images, test_limit=TEST_IMAGES)
    verified = verify(made.model, trace(made.model, made.example))
    ranking = rank_channels(
        made.model,
        verified.space,
        "l2",
        calibration=Calibration(made.batches, F.cross_entropy if made.labelled else None),
    )
    model = in_form(verified)(made.model).eval()
    return Ranked(name, model, verified.space, ranking, splits, made.example)


def _drawn(domain: BudgetedSpace, count: int) -> list[Widths]:
    rng = np.random.default_rng(2_018)
    uniform = domain.uniform()
    found: dict[Widths, None] = {uniform: None}
    for number in range(50 * count):
        if len(found) == count:
            return list(found)
        near = np.array([uniform]) * np.exp(_SPREAD * rng.standard_normal((1, len(uniform))))
        row = domain.sample(1, rng) if number % 2 else domain.repair(near)
        if _BAND <= domain.budget.usage(row)[0] <= 1:
            found[as_widths(row[0])] = None
    raise RuntimeError(f"only {len(found)} of {count} vectors lie within 2 % of the budget")
