"""The page of `inheritance.py`, and which of its claims do not hold."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence

import torch

from reconstruction.cells import CHAINS, Measured

CLOSED = {"sequential_least_squares": 75.0, "least_squares": 55.0}
"""Percent of the way from recalibrated to base, on ResNet-20 at 25 % of the FLOPs."""


def page(cells: Sequence[Measured]) -> str:
    """All tables as markdown."""
    parts = [
        "# Right after the cut: inheritance methods at uniform widths",
        "",
        f"`python benchmarks/inheritance.py`, torch {torch.__version__} on {platform.machine()}, one thread. Score of "
        "the cut network before any training, on test examples; every method but the first is followed by recalibrated "
        "batch norms; 512 unlabelled images of the training set (16 crops for the demosaicing network).",
    ]
    for network in dict.fromkeys(cell.network for cell in cells):
        parts += ["", *_network([cell for cell in cells if cell.network == network])]
    found = failures(cells)
    parts += ["", "## Claims", "", *([f"- fails: {text}" for text in found] or ["All hold."])]
    return "\n".join(parts) + "\n"


def failures(cells: Sequence[Measured]) -> list[str]:
    """One sentence for each claim that does not hold."""
    found = []
    for name, least in CLOSED.items():
        shares = [
            share
            for cell in cells
            if cell.network == "resnet20" and cell.budget == 25 and cell.chain.startswith(name)
            if (share := closed(cell, cells)) is not None
        ]
        if shares and max(shares) < least:
            found.append(f"{name} closes {max(shares):.0f} % of the way on resnet20 at 25 %, not {least:.0f} %")
    for cell in cells:
        if cell.chain == "peer" and cell.score is not None and not math.isnan(cell.score):
            ours = max(value[0] for name, value in cell.others.items() if name.startswith("autoprune "))
            if ours < cell.score:
                found.append(
                    f"{cell.network} at {cell.budget} %: Torch-Pruning {cell.score:.2f}, ours at its FLOPs {ours:.2f}"
                )
    return found


def closed(cell: Measured, cells: Sequence[Measured]) -> float | None:
    """Percent of the way from recalibrated to base that a cell closes."""
    key = (cell.network, cell.budget, cell.criterion, "recalibrated")
    start = next((other.score for other in cells if other.key == key), None)
    if start is None or cell.score is None or cell.base is None or cell.base == start:
        return None
    return 100 * (cell.score - start) / (cell.base - start)


def _network(cells: Sequence[Measured]) -> list[str]:
    ours, peers = [c for c in cells if c.chain != "peer"], [c for c in cells if c.chain == "peer"]
    budgets, criteria = sorted({c.budget for c in ours}, reverse=True), list(dict.fromkeys(c.criterion for c in ours))
    first = cells[0]
    by_key = {c.key: c for c in ours}
    heads = [f"{criterion}, {budget} %" for criterion in criteria for budget in budgets]
    lines = [
        f"## {first.network}: {first.base:.2f} {first.unit} before the cut",
        "",
        f"| method | {' | '.join(heads)} | first, s | next, s | of scoring 1,000 |",
        f"|---|{'---:|' * (len(heads) + 3)}",
    ]
    for chain in CHAINS:
        row = [by_key.get((first.network, b, c, chain)) for c in criteria for b in budgets]
        scores = ["" if cell is None else f"{cell.score:.2f}" for cell in row]
        timed = [cell for cell in row if cell is not None and cell.first is not None and cell.next is not None]
        if not timed:
            continue
        last = timed[min(len(budgets), len(timed)) - 1]
        share = last.next / last.pass_seconds if last.next and last.pass_seconds else 0.0
        lines.append(f"| {chain} | {' | '.join(scores)} | {last.first:.2f} | {last.next:.3f} | {share:.2f} x |")
    lines += ["", *(_peer(cell) for cell in peers)]
    return lines


def _peer(cell: Measured) -> str:
    if cell.score is None or math.isnan(cell.score) or cell.flops is None:
        return f"- Torch-Pruning at {cell.budget} %: no network ({'; '.join(map(str, cell.others.values()))})."
    ours = {n.removeprefix("autoprune "): v[0] for n, v in cell.others.items() if n.startswith("autoprune ")}
    best = max(ours, key=lambda name: ours[name])
    return (
        f"- Torch-Pruning within {cell.budget} % (it uses {cell.flops:.1f} %): {cell.score:.2f} with its best "
        f"criterion, `{cell.others['best']}`; ours at its FLOPs: {ours[best]:.2f} with `{best}`, "
        f"{ours['recalibrated']:.2f} recalibrated only."
    )
