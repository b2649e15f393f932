"""The page of `criteria.py`: statistics over criteria, and which of its claims do not hold."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, final

import numpy as np
import torch
from scipy.stats import spearmanr

from autoprune.importance import CRITERIA
from autoprune.importance.evidence import DATA, LOSS, needs_of
from reconstruction.rankings import CHAINS, LIGHTER, ORACLE, REPEAT, SCORES, Row

REPORTED = 0.93
"""Correlation with the oracle of Molchanov et al. 2019, arXiv 1906.10771, on networks trained on ImageNet."""

NETWORKS = ("resnet20", "mobilenetv2")
"""That a full run measures."""

Scores: TypeAlias = Sequence[Sequence[float]]


@final
@dataclass(slots=True)
class Line:
    """A criterion on one network; several values where it has several seeds.

    Attributes:
        criterion: its name.
        within: Spearman's correlation with the oracle, mean over the groups.
        across: over the channels of all groups.
        seconds: of its scores.
        cut: chain -> scores of the cut network.
        failed: what went wrong.
    """

    criterion: str
    within: list[float] = field(default_factory=list)
    across: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cut: dict[str, list[float]] = field(default_factory=lambda: {chain: [] for chain in CHAINS})
    failed: str = ""

    @property
    def judged(self) -> bool:
        """Whether it is one of the criteria in the spread: no control, and nothing went wrong."""
        return not (self.failed or self.criterion == REPEAT or is_control(self.criterion))


def correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's, tied values by their mean rank; 0 where one of them tells nothing apart."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one, other).statistic)


def within(one: Scores, other: Scores) -> float:
    """Mean of the correlations of each group that has more than one channel."""
    return float(np.mean([correlation(a, b) for a, b in zip(one, other, strict=True) if len(a) > 1]))


def across(one: Scores, other: Scores) -> float:
    """Correlation over the channels of all groups."""
    return correlation(np.concatenate(one).tolist(), np.concatenate(other).tolist())


def is_control(criterion: str) -> bool:
    """Whether it looks at nothing."""
    return bool(getattr(CRITERIA.get(criterion), "blind", False))


def lines(rows: Sequence[Row], network: str) -> list[Line]:
    """All criteria on a network, those that agree most with the oracle first."""
    own = [row for row in rows if row.network == network]
    oracle = next((r.scores for r in own if (r.criterion, r.what) == (ORACLE, SCORES) and not r.failed), None)
    found: dict[str, Line] = {}
    for row in own:
        line = found.setdefault(row.criterion, Line(row.criterion))
        if row.failed:
            line.failed = row.failed
        elif row.what != SCORES:
            line.cut[row.what] += [row.value] if row.value is not None else []
        else:
            line.seconds.append(row.seconds)
            if oracle is not None:
                line.within.append(within(row.scores, oracle))
                line.across.append(across(row.scores, oracle))
    return sorted(found.values(), key=lambda line: -float(np.mean(line.within or [-2.0])))


def spread(of: Sequence[Line], chain: str) -> float:
    """Standard deviation of the score of the cut network over the criteria; 0 for fewer than two."""
    values = [line.cut[chain][0] for line in of if line.judged and line.cut[chain]]
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def agreement(
    of: Sequence[Line], one: Callable[[Line], list[float]], other: Callable[[Line], list[float]]
) -> float | None:
    """Spearman's correlation of two columns over the criteria that have both; None for fewer than three."""
    pairs = [(one(line)[0], other(line)[0]) for line in of if line.judged and one(line) and other(line)]
    return correlation([a for a, _ in pairs], [b for _, b in pairs]) if len(pairs) > 2 else None


def failures(rows: Sequence[Row]) -> list[str]:
    """One sentence for each claim that does not hold."""
    found = []
    for network in dict.fromkeys(row.network for row in rows):
        own = lines(rows, network)
        taylor = [line for line in own if line.criterion.startswith("taylor_") and line.within]
        for name, of in (("within layers", lambda line: line.within), ("across layers", lambda line: line.across)):
            if taylor and (best := max(taylor, key=lambda line: of(line)[0])) and of(best)[0] < REPORTED:
                found.append(
                    f"{network}, {name}: the best Taylor criterion, {best.criterion}, correlates with the oracle by "
                    f"{of(best)[0]:.2f}, not the {REPORTED} of its paper"
                )
        before = spread(own, "recalibrated")
        found += [
            f"{network}: after {chain} the scores of the criteria still spread by {spread(own, chain):.2f}, before it "
            f"by {before:.2f}"
            for chain in list(CHAINS)[1:]
            if spread(own, chain) >= before > 0
        ]
    return found


def page(rows: Sequence[Row], *, budget: int, test_images: int) -> str:
    """All tables as markdown."""
    lighter = "; ".join(f"`{name}` with {_told(given)}" for name, given in LIGHTER.items())
    parts = [
        "# Criteria: agreement with ablation, and accuracy right after the cut",
        "",
        f"`python benchmarks/criteria.py`, torch {torch.__version__} on {platform.machine()}, one thread, on a machine "
        f"that had other work: seconds are upper bounds. Criteria look at 256 labelled training images, with their "
        f"default settings but for {lighter}. Correlations are Spearman's with `ablation` on the same images: within "
        f"layers (mean over the width groups) and over the channels of all layers; `{REPEAT}` is the oracle measured "
        f"again on 256 others. Accuracy is that of networks cut to {budget} % of the FLOPs at uniform widths, on "
        f"{test_images:,} test images, without training: with batch norms recalibrated, and with consumers refitted "
        f"before that on 512 unlabelled images.",
    ]
    for network in dict.fromkeys(row.network for row in rows):
        parts += ["", *_network(rows, network)]
    absent = [name for name in NETWORKS if name not in {row.network for row in rows}]
    if absent:
        parts += ["", f"Networks not run: {', '.join(absent)}."]
    found = failures(rows)
    parts += ["", "## Claims", "", *([f"- fails: {text}" for text in found] or ["None that was measured fails."])]
    return "\n".join(parts) + "\n"


def _told(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _network(rows: Sequence[Row], network: str) -> list[str]:
    own = lines(rows, network)
    cuts = [row for row in rows if row.network == network and row.value is not None]
    told = (
        f": {cuts[0].base:.2f} {cuts[0].unit} before the cut, {cuts[0].flops:.1f} % of the FLOPs after it"
        if cuts
        else ""
    )
    made = [
        f"## {network}{told}",
        "",
        f"| criterion | looks at | seconds | within | across | {' | '.join(CHAINS)} |",
        f"|---|---|{'---:|' * (3 + len(CHAINS))}",
    ]
    for line in own:
        if not line.failed:
            values = [_mean(line.within, 2), _mean(line.across, 2), *(_mean(line.cut[chain], 2) for chain in CHAINS)]
            made.append(f"| {line.criterion} | {_looks_at(line)} | {_mean(line.seconds, 1)} | {' | '.join(values)} |")
    made += [f"\n`{line.criterion}` failed: {line.failed}" for line in own if line.failed]
    missing = [name for name in CRITERIA.names() if name not in {line.criterion for line in own}]
    if missing:
        made += ["", f"Not run: {', '.join(f'`{name}`' for name in missing)}."]
    return [*made, "", *_matters(own)] if cuts else made


def _looks_at(line: Line) -> str:
    if line.criterion != REPEAT and is_control(line.criterion):
        return "nothing"
    needs = needs_of(CRITERIA.get(ORACLE if line.criterion == REPEAT else line.criterion))
    return "labels" if needs & LOSS else "inputs" if needs & DATA else "weights"


def _mean(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    told = f"{np.mean(values):.{digits}f}"
    return told if len(values) < 2 else f"{told} ± {np.std(values, ddof=1):.{digits}f}"


def _told_or_blank(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _matters(own: Sequence[Line]) -> list[str]:
    """The table that says whether the criterion still matters."""
    columns: list[list[str]] = []
    for chain in CHAINS:
        values = {line.criterion: line.cut[chain][0] for line in own if line.judged and line.cut[chain]}
        luck = next((line.cut[chain] for line in own if line.criterion == "random"), [])
        best = max(values, key=lambda name: values[name], default="")
        columns.append(
            [
                f"{values[best]:.2f}, {best}" if best else "",
                f"{np.median([*values.values()]):.2f}" if values else "",
                f"{min(values.values()):.2f}, {min(values, key=lambda name: values[name])}" if values else "",
                f"{spread(own, chain):.2f}",
                _mean(luck, 2),
                _told_or_blank(
                    agreement(own, lambda line: line.cut["recalibrated"], lambda line, c=chain: line.cut[c])
                ),
                _told_or_blank(agreement(own, lambda line: line.within, lambda line, c=chain: line.cut[c])),
            ]
        )
    names = (
        "best criterion",
        "median",
        "worst criterion",
        "spread: standard deviation over criteria",
        "random orders, mean ± standard deviation",
        "Spearman with the column `recalibrated`",
        "Spearman with the column `within`",
    )
    judged = sum(line.judged for line in own)
    return [
        f"Does the criterion still matter after reconstruction? Over the {judged} criteria that look at something:",
        "",
        f"| | {' | '.join(CHAINS)} |",
        f"|---|{'---:|' * len(CHAINS)}",
        *(f"| {name} | {' | '.join(column[row] for column in columns)} |" for row, name in enumerate(names)),
    ]
