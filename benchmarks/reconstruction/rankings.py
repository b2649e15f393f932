"""How criteria rank the channels of a network, and what is left of it after a cut by each; kept line by line."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
import torch.nn.functional as F

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import AutopruneError
from autoprune.importance.evidence import Calibration
from autoprune.importance.members import channel_scores, ranking_of
from autoprune.inherit.base import Chain, Statistics
from autoprune.space.cutting.slicing import Slicer
from autoprune.space.origin import in_form
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from reconstruction.bases import Trained

ORACLE = "ablation"
REPEAT = "ablation, other images"
"""How far the oracle agrees with itself: what no criterion can be expected to pass."""

SCORES = "scores"
CHAINS: Mapping[str, Sequence[str]] = {
    "recalibrated": ("bn_recalibration",),
    "least_squares": ("least_squares", "bn_recalibration"),
    "sequential_least_squares": ("sequential_least_squares", "bn_recalibration"),
}
LIGHTER: Mapping[str, Mapping[str, Any]] = {
    "greedy_forward": {"examples": 32, "candidates": 4},
    "sensitivity": {"examples": 128},
}
"""Settings of those that would take longest; all others have their defaults."""

_BATCHES = 2
"""Of 128 images for all criteria; as many others for the oracle's second time."""

_CPU = torch.device("cpu")


@final
@dataclass(frozen=True, slots=True)
class Row:
    """Scores of all channels by one criterion, or the score of the network that was cut by them.

    Attributes:
        network: its name.
        criterion: its name, or `REPEAT`.
        seed: of the criterion.
        what: `SCORES`, or one of `CHAINS`.
        budget: percent of the FLOPs that the cut network may use; 0 of `SCORES`.
        test_images: that it is scored on; 0 of `SCORES`.
        seconds: of the scores, or of reconstruction.
        scores: per group; of `SCORES` only.
        value: score of the cut network on test examples; nothing of `SCORES`.
        base: of the full network.
        flops: percent of the full network's.
        failed: what went wrong.
    """

    network: str
    criterion: str
    seed: int
    what: str
    budget: int = 0
    test_images: int = 0
    seconds: float = 0.0
    scores: Sequence[Sequence[float]] = ()
    value: float | None = None
    base: float | None = None
    flops: float | None = None
    unit: str = ""
    failed: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """What it is a measurement of."""
        return self.network, self.criterion, self.seed, self.what, self.budget, self.test_images


@final
class KeptRows:
    """Rows in a file of JSON lines, written as they are measured; a last line that was cut short is measured again.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._torn = bool(lines) and not lines[-1].endswith("}")
        self._rows = [Row(**json.loads(line)) for line in lines if line.endswith("}")]

    @property
    def rows(self) -> list[Row]:
        """All that are measured."""
        return list(self._rows)

    def once(self, row: Row, work: Callable[[Row], Row]) -> Row:
        """The row as it was measured, now or before."""
        for known in self._rows:
            if known.key == row.key:
                return known
        done = work(row)
        self._rows.append(done)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write("\n" * self._torn + json.dumps(dataclasses.asdict(done)) + "\n")
        self._torn = False
        told = done.failed or (f"{len(done.scores)} groups" if done.value is None else f"{done.value:.2f} {done.unit}")
        print(f"{' '.join(map(str, done.key[:4]))}: {told}, {done.seconds:.1f} s", flush=True)
        return done


@final
class Rankings:
    """Measures the rows of one network; what all of them share is made once.

    Args:
        made: the network, with labelled calibration batches.
        budget: percent of the FLOPs that a cut network may use, at uniform widths.
    """

    def __init__(self, made: Trained, budget: int) -> None:
        self._made = made
        verified = verify(made.model, trace(made.model, made.example))
        self._space, self._dense = verified.space, in_form(verified)(made.model)
        domain = BudgetedSpace(self._space, {"flops": f"{budget}%"})
        self._widths = domain.uniform()
        costs = domain.costs(np.array([self._widths, self._space.full]))["flops"]
        self._flops = 100 * float(costs[0] / costs[1])
        self._statistics = Statistics(lambda number: [x for x, _ in made.batches[:number]], _CPU)
        self._base = made.score(made.model)

    def scored(self, row: Row) -> Row:
        """Fill in the scores of the channels, or what went wrong."""
        repeats = row.criterion == REPEAT
        name = ORACLE if repeats else row.criterion
        batches = self._made.batches[_BATCHES : 2 * _BATCHES] if repeats else self._made.batches[:_BATCHES]
        calibration = Calibration(batches, F.cross_entropy)
        chosen = {"name": name, "settings": dict(LIGHTER.get(name, {}))}
        start = time.perf_counter()
        try:
            found = channel_scores(self._made.model, self._space, chosen, seed=row.seed, calibration=calibration)
        except AutopruneError as error:
            return replace(row, failed=f"{type(error).__name__}: {error}")
        return replace(row, seconds=time.perf_counter() - start, scores=[scores.tolist() for scores in found])

    def cut(self, row: Row, scored: Row) -> Row:
        """Fill in the score of the network that keeps the best channels, or what went wrong."""
        if scored.failed:
            return replace(row, failed=scored.failed)
        ranking = ranking_of(self._space, [np.array(scores) for scores in scored.scores])
        chain = Chain(CHAINS[row.what])
        chain.prepare(self._statistics)
        cut = Slicer(self._dense, self._space, ranking).cut(self._widths)
        start = time.perf_counter()
        try:
            model = chain.apply(cut, self._dense, self._statistics)
        except AutopruneError as error:
            return replace(row, failed=f"{type(error).__name__}: {error}")
        seconds = time.perf_counter() - start
        value = self._made.score(model)
        return replace(row, seconds=seconds, value=value, base=self._base, flops=self._flops, unit=self._made.unit)
