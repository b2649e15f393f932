"""The page of `language_model.py`, and which of its claims do not hold."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import torch

from autoprune.space.groups import SearchSpace
from language.cells import CHAINS, LanguageCell

_ARMS = ("uniform_all", "uniform_inner", "searched", "searched as sliced")
_TOLD = {
    "uniform_all": "uniform: one ratio everywhere",
    "uniform_inner": "uniform: residual width whole",
    "searched": "searched by divergence after least squares",
    "searched as sliced": "searched by divergence as sliced",
}


def page(cells: Sequence[LanguageCell], about: Mapping[str, Any], space: SearchSpace) -> str:
    """The tables as markdown.

    Args:
        cells: what was measured.
        about: what was done, see `language_model.py`.
        space: of the network.
    """
    base = next(cell for cell in cells if cell.arm == "base")
    seeds = sorted({cell.seed for cell in cells if cell.arm == "searched"})
    return "\n".join(
        [
            "# A language model, cut without training",
            "",
            f"`python benchmarks/language_model.py`, torch {torch.__version__}, Python {platform.python_version()} on "
            f"{platform.machine()}, one thread. `char_llama` ({about['weights']:,} weights: rotary positions, grouped "
            f"queries, SwiGLU, tied embeddings), trained in {about['epochs']} epochs ({about['seconds']:.0f} s of CPU "
            f"time) on the topics of Python's manual as Python ships them (`pydoc_data.topics`, PSF licence; "
            f"{about['characters']:,} characters, each paragraph once; 80 % to train on, 10 % each for validation and "
            f"test). Perplexity is per character of the test part, computed by torch alone; the base network has "
            f"**{base.perplexity:.3f}**.",
            "",
            f"Cut to {about['budget']} % of its parameters, whatever layers they are in: {_kinds(space)}. Nothing is "
            f"trained after the cut. A search of {about['trials']} proposals sees the base network's logits on 96 "
            f"blocks of the validation part and no label; least squares are fitted on 128 blocks of the training part. "
            f"{len(seeds)} seeds, each with a search and with calibration blocks of its own that no search has seen; "
            f"mean ± standard deviation.",
            "",
            *_table("Perplexity per character", cells, seeds, lambda cell: cell.perplexity, "3f"),
            "",
            *_table("Divergence from the base network, nats per character", cells, seeds, lambda c: c.divergence, "4f"),
            "",
            *_reading(cells, seeds),
            "",
            "## What was found",
            "",
            *_widths(cells, seeds, space),
            "",
            "## Claims",
            "",
            *([f"- fails: {text}" for text in failures(cells)] or ["All hold."]),
            "",
        ]
    )


def failures(cells: Sequence[LanguageCell]) -> list[str]:
    """One sentence for each claim that does not hold: searching beats uniform, and refitting beats slicing."""
    found = []
    for seed in sorted({cell.seed for cell in cells if cell.arm == "searched"}):
        rows = {cell.arm: cell for cell in cells if cell.seed == seed and cell.chain == "sequential"}
        best = min(rows["uniform_all"].perplexity, rows["uniform_inner"].perplexity)
        if rows["searched"].perplexity >= best:
            found.append(f"seed {seed}: searched {rows['searched'].perplexity:.3f}, uniform {best:.3f}")
        for arm in rows:
            sliced = _of(cells, arm, "as sliced", [seed])
            if sliced and rows[arm].perplexity >= sliced[0].perplexity:
                found.append(
                    f"seed {seed}: {arm} refitted {rows[arm].perplexity:.3f}, sliced {sliced[0].perplexity:.3f}"
                )
    return found


def _table(title: str, cells: Sequence[LanguageCell], seeds: Sequence[int], value: Any, form: str) -> list[str]:
    lines = [f"| {title} | {' | '.join(CHAINS)} | parameters |", f"|---|{'---:|' * (len(CHAINS) + 1)}"]
    for arm in _ARMS:
        rows = [_of(cells, arm, chain, seeds) for chain in CHAINS]
        if any(rows):
            shares = [cell.params for row in rows for cell in row]
            texts = [_spread([value(cell) for cell in row], form) for row in rows]
            lines.append(f"| {_TOLD[arm]} | {' | '.join(texts)} | {mean(shares):.1f} % |")
    return lines


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return ""
    if len(values) < 2 or stdev(values) == 0:
        return format(values[0], f".{form}")
    return f"{mean(values):.{form}} ± {stdev(values):.{form}}"


def _of(cells: Sequence[LanguageCell], arm: str, chain: str, seeds: Sequence[int]) -> list[LanguageCell]:
    return [cell for cell in cells if (cell.arm, cell.chain) == (arm, chain) and cell.seed in seeds]


def _reading(cells: Sequence[LanguageCell], seeds: Sequence[int]) -> list[str]:
    """What the tables say, in sentences."""
    base = next(cell for cell in cells if cell.arm == "base").perplexity
    means = {
        (arm, chain): mean(cell.perplexity for cell in rows)
        for arm in _ARMS
        for chain in CHAINS
        if (rows := _of(cells, arm, chain, seeds))
    }
    best = min(("uniform_all", "uniform_inner"), key=lambda arm: means[arm, "sequential"])
    ours, theirs, sliced = means["searched", "sequential"], means[best, "sequential"], means[best, "as sliced"]
    # in nats per character, where losses add up
    back = 100 * math.log(sliced / theirs) / math.log(sliced / base)
    more = 100 * math.log(theirs / ours) / math.log(theirs / base)
    return [
        f"Reconstruction takes back {back:.0f} % of what the better uniform cut loses ({sliced:.2f} to {theirs:.2f}, "
        f"counted in nats), and searched widths {more:.0f} % of what is lost after that ({theirs:.2f} to {ours:.2f})."
    ]


def _widths(cells: Sequence[LanguageCell], seeds: Sequence[int], space: SearchSpace) -> list[str]:
    rows = [_of(cells, arm, "as sliced", [seed]) for seed in seeds for arm in ("searched",)]
    found = [row[0] for row in rows if row]
    lines = [
        f"| group | full | {' | '.join(f'seed {cell.seed}' for cell in found)} |",
        f"|---|---:|{'---:|' * len(found)}",
    ]
    for number, group in enumerate(space.groups):
        kept = " | ".join(str(cell.widths[number]) for cell in found)
        lines.append(f"| `{group.name}` ({group.kind}) | {group.width} | {kept} |")
    return lines


def _kinds(space: SearchSpace) -> str:
    heads = sum(group.kind == "heads" for group in space.groups)
    return f"the residual width, key and value heads with their queries in {heads} layers, and as many MLP widths"
