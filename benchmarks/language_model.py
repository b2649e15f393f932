"""A language model cut to 60 % of its parameters by divergence alone: uniform and searched widths, with and without
reconstruction.

    python benchmarks/language_model.py [--budget 60] [--trials 60] [--seeds 3] [--folder runs/language]
                                        [--write docs/results/language_model.md]

Trains `char_llama` on the topics of Python's manual, which ship with Python (once; it is kept). Then, for each seed: a
search under the budget, whose scores are divergences from the base network's logits; uniform and searched widths, as
they are sliced, refitted by least squares, and refitted in the order of the graph, on calibration text of the seed;
perplexity and divergence on text that nothing has seen. No training after the cut. At last, searches whose scores are
of networks as they are sliced.

Everything is kept as soon as it is there: a run that was ended goes on where it was. 25 minutes of one core.
Ends with an error where searched widths are not better than both uniforms for a seed, or reconstruction does not help.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from language.base import EPOCHS, trained
from language.cells import CHAINS, Laboratory, LanguageCell, LanguageCells
from language.page import failures, page

from autoprune.data.python_manual import manual


def main() -> int:
    """Measure what is missing, print the page; return 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=60, help="percent of the parameters")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--limit", type=int, help="only so many characters of the text; to try it out")
    parser.add_argument("--folder", type=Path, default=Path("runs/language"))
    parser.add_argument("--write", type=Path, help="a markdown file for the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = trained(options.folder, epochs=options.epochs, limit=options.limit)
    place = options.folder / f"cells-{options.epochs}-{options.limit or 'all'}-{options.budget}-{options.trials}.jsonl"
    cells, laboratory = LanguageCells(place), Laboratory(base, place.with_suffix(""))
    _measure(laboratory, cells, options)
    about = {
        "weights": sum(p.numel() for p in base.model.parameters()),
        "epochs": options.epochs,
        "seconds": base.seconds,
        "characters": len(manual()[: options.limit]),
        "budget": options.budget,
        "trials": options.trials,
    }
    text = page(cells.cells, about, laboratory.space)
    print(text)
    if options.write is not None:
        options.write.write_text(text)
    found = failures(cells.cells)
    print("\n".join(found), file=sys.stderr)
    return 1 if found else 0


def _measure(laboratory: Laboratory, cells: LanguageCells, options: argparse.Namespace) -> None:
    full = laboratory.space.full
    _cell(laboratory, cells, "base", "as sliced", 0, full)
    for refitted in (True, False):
        for seed in range(options.seeds):
            ours = "searched" if refitted else "searched as sliced"
            arms = ["uniform_all", "uniform_inner", ours] if refitted else [ours]
            if all((arm, chain, seed) in cells for arm in arms for chain in CHAINS):
                continue
            seconds, found = laboratory.searched(seed, refitted=refitted, budget=options.budget, trials=options.trials)
            print(f"search, seed {seed}: {seconds:.0f} s of CPU time", flush=True)
            for arm in arms:
                for chain in CHAINS:
                    _cell(laboratory, cells, arm, chain, seed, found["winner" if arm == ours else arm])


def _cell(
    laboratory: Laboratory, cells: LanguageCells, arm: str, chain: str, seed: int, widths: tuple[int, ...]
) -> None:
    if (arm, chain, seed) not in cells:
        made: LanguageCell = laboratory.measured(arm, chain, seed, widths)
        cells.add(made)


if __name__ == "__main__":
    raise SystemExit(main())
