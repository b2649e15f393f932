"""The page: how each judge's order agrees with that of trained networks, beside what one training says of another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, final

import numpy as np
from scipy.stats import kendalltau

from ranking.networks import VECTORS
from ranking.scores import Scored, judges
from ranking.truth import IMAGES, SEEDS, WAYS, Training

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
DRAWS = 500
BLENDED_AT = 20
"""Number of the first vector that was not trained yet when the evaluator `blend` was made by looking at the others."""
_LEAST = 8
"""Vectors below which nothing is said."""


@final
@dataclass(frozen=True, eq=False)
class Truth:
    """The trainings of one network, budget and way.

    Attributes:
        network: its name.
        budget: percent of the FLOPs.
        way: one of `WAYS`.
        numbers: of the vectors whose trainings are complete.
        scores: (vectors, seeds) percent.
    """

    network: str
    budget: int
    way: str
    numbers: tuple[int, ...]
    scores: Array

    @property
    def means(self) -> Array:
        """(vectors,) over seeds."""
        means: Array = self.scores.mean(axis=1)
        return means

    @property
    def reliability(self) -> float:
        """Share of the variance of one training's scores that belongs to the widths, by the components of variance."""
        within = float(self.scores.var(axis=1, ddof=1).mean())
        between = max(0.0, float(self.means.var(ddof=1)) - within / SEEDS)
        return between / (between + within) if between + within else 0.0

    def since(self, number: int) -> Truth | None:
        """The vectors from this number on; None where they are too few."""
        kept = [place for place, own in enumerate(self.numbers) if own >= number]
        if len(kept) < _LEAST:
            return None
        return replace(self, numbers=tuple(self.numbers[place] for place in kept), scores=self.scores[kept])


def truths(trainings: Sequence[Training]) -> list[Truth]:
    """Every table of the ground truth that has enough vectors."""
    scores = {one.key: one.score for one in trainings}
    found = []
    for network, budget in sorted({(one.network, one.budget) for one in trainings}, reverse=True):
        for way in WAYS:
            rows = {
                number: [scores.get((network, budget, number, way, seed)) for seed in range(SEEDS)]
                for number in sorted({o.number for o in trainings if (o.network, o.budget) == (network, budget)})
            }
            whole = {number: row for number, row in rows.items() if None not in row}
            if len(whole) >= _LEAST:
                table = np.array(list(whole.values()), dtype=np.float64)
                found.append(Truth(network, budget, way, tuple(whole), table))
    return found


@final
@dataclass(frozen=True, slots=True)
class Line:
    """What is said of one judge.

    Attributes:
        name: of the judge.
        tau: Kendall's tau-b with the mean over seeds.
        low: of the interval of tau, by a bootstrap over vectors.
        high: of the same.
        top1: points that the best of all is above the one that the judge puts first.
        top5: points that the best of all is above the best of the judge's first five.
        cost: CPU seconds of one evaluation.
        passes: images.
    """

    name: str
    tau: float
    low: float
    high: float
    top1: float
    top5: float
    cost: float
    passes: float


def lines(truth: Truth, scored: Sequence[Scored], trainings: Sequence[Training]) -> list[Line]:
    """One training first, then every judge that has scored all vectors, the best first."""
    seconds = [
        t.cpu_seconds for t in trainings if (t.network, t.budget, t.way) == (truth.network, truth.budget, truth.way)
    ]
    reference = _one_training(truth, float(np.median(seconds)))
    found = []
    for name in judges():
        rows = {
            one.number: one
            for one in scored
            if (one.network, one.budget, one.judge) == (truth.network, truth.budget, name) and one.score is not None
        }
        if set(truth.numbers) <= set(rows):
            mine = [rows[number] for number in truth.numbers]
            values = np.array([one.score for one in mine], dtype=np.float64)
            cost = float(np.median([one.cpu_seconds for one in mine]))
            found.append(
                _line(name, lambda chosen, v=values: (v[chosen], truth.means[chosen]), truth, cost, mine[0].passes)
            )
    return [reference, *sorted(found, key=lambda line: -line.tau)]


def _line(name: str, pairs: Callable[[Any], tuple[Array, Array]], truth: Truth, cost: float, passes: float) -> Line:
    everything = np.arange(len(truth.numbers))
    rng = np.random.default_rng(0)
    values, means = pairs(everything)
    taus = [_tau(*pairs(rng.integers(len(everything), size=len(everything)))) for _ in range(DRAWS)]
    low, high = np.quantile(taus, [0.025, 0.975])
    order = np.argsort(-values, kind="stable")
    best = means.max()
    return Line(
        name, _tau(values, means), low, high, best - means[order[0]], best - means[order[:5]].max(), cost, passes
    )


def _one_training(truth: Truth, cost: float) -> Line:
    """Each seed's scores against the mean of the others', averaged."""
    each = []
    for seed in range(SEEDS):
        rest = np.delete(truth.scores, seed, axis=1).mean(axis=1)
        each.append(
            _line(
                "one training",
                lambda chosen, s=truth.scores[:, seed], r=rest: (s[chosen], r[chosen]),
                truth,
                cost,
                3.0 * IMAGES * WAYS[truth.way].epochs,
            )
        )
    means = [float(np.mean([getattr(line, key) for line in each])) for key in ("tau", "low", "high", "top1", "top5")]
    return Line("one training, against the others", *means, cost, each[0].passes)


def _tau(first: Array, second: Array) -> float:
    tau = float(kendalltau(first, second)[0])
    return tau if np.isfinite(tau) else 0.0


def page(trainings: Sequence[Training], scored: Sequence[Scored]) -> str:
    """All tables as markdown."""
    found = truths(trainings)
    parts = [
        "# Do cheap scores order networks of one budget as training does?",
        "",
        "`python benchmarks/rank_fidelity.py`. Vectors of widths within 2 % of a budget, every second one drawn as "
        "random search draws, the others near uniform. The truth: test accuracy, mean over three seeds, of networks "
        f"fine-tuned from reconstructed weights with distillation ({IMAGES} images once) and trained from scratch "
        f"({IMAGES} images {WAYS['from scratch'].epochs} times), all on the same batches. Kendall's τ with a 95 % "
        "interval by a bootstrap over the vectors; regret in points of accuracy: how far what the score puts first, or "
        "the best of its first five, is below the best of all. Cost: CPU seconds of one evaluation as percent of those "
        "of one such training. One training is compared with the mean of the other two seeds, scores with that of all.",
    ]
    parts += _in_short(found, scored, trainings)
    for truth in found:
        table = lines(truth, scored, trainings)
        spread, noise = truth.means.std(ddof=1), np.sqrt(truth.scores.var(axis=1, ddof=1).mean())
        parts += [
            "",
            f"## {truth.network}, {truth.budget} % of the FLOPs, {truth.way}",
            "",
            f"{len(truth.numbers)} of {VECTORS[truth.budget]} vectors, {truth.means.min():.2f} to "
            f"{truth.means.max():.2f} %; deviation between them {spread:.2f}, of one training around its vector "
            f"{noise:.2f}: {100 * truth.reliability:.0f} % of the variance of a training's score belongs to the "
            f"widths. Uniform: {_uniform(truth)}.",
            "",
            "| score | Kendall's τ | interval | regret of its first | of its first five | passes | cost |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        parts += [
            f"| {one.name} | {one.tau:.2f} | {one.low:.2f} to {one.high:.2f} | {one.top1:.2f} | {one.top5:.2f} | "
            f"{one.passes:,.0f} | {100 * one.cost / table[0].cost:.1f} % |"
            for one in table
        ]
    return "\n".join(parts) + "\n"


def _in_short(found: Sequence[Truth], scored: Sequence[Scored], trainings: Sequence[Training]) -> list[str]:
    """Kendall's τ of each judge in all tables of fine-tuned networks, over all vectors and over those trained last."""
    tuned = [truth for truth in found if truth.way == "fine-tuned"]
    later = [truth for truth in (one.since(BLENDED_AT) for one in tuned) if truth is not None]
    if not tuned:
        return []
    said = f"Vectors from number {BLENDED_AT} on alone, which were trained after `blend` was made"
    parts = ["", "## In short: Kendall's τ with fine-tuned networks", "", *_table(tuned, scored, trainings)]
    return parts if not later else [*parts, "", f"{said}:", "", *_table(later, scored, trainings)]


def _table(some: Sequence[Truth], scored: Sequence[Scored], trainings: Sequence[Training]) -> list[str]:
    """A column for each, and a row for each judge that has scored all; the cost is the highest of them."""
    tables = [{line.name: line for line in lines(truth, scored, trainings)} for truth in some]
    names = [name for name in tables[0] if all(name in table for table in tables)]
    taus = {name: [table[name].tau for table in tables] for name in names}
    whole = [next(iter(table.values())).cost for table in tables]
    heads = [f"{truth.network}, {truth.budget} %, {len(truth.numbers)} vectors" for truth in some]
    parts = [f"| score | {' | '.join(heads)} | mean | cost |"]
    parts += [f"|---|{'---:|' * (len(some) + 2)}"]
    for name in [names[0], *sorted(names[1:], key=lambda name: -float(np.mean(taus[name])))]:
        cost = max(table[name].cost / one for table, one in zip(tables, whole, strict=True))
        cells = [f"{tau:.2f}" for tau in (*taus[name], float(np.mean(taus[name])))]
        parts.append(f"| {name} | {' | '.join(cells)} | {100 * cost:.1f} % |")
    return parts


def _uniform(truth: Truth) -> str:
    if 0 not in truth.numbers:
        return "not trained"
    rank = int((truth.means > truth.means[truth.numbers.index(0)]).sum()) + 1
    return f"{truth.means[truth.numbers.index(0)]:.2f} %, rank {rank}"
