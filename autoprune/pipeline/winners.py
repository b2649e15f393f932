"""What a search for several budgets leaves behind: the best widths of each, as files."""

from __future__ import annotations

from collections.abc import Mapping

from autoprune.space.groups import SearchSpace, Widths
from autoprune.trials.run_directory import RunDirectory


def write_winners(
    winners: Mapping[float, Widths], space: SearchSpace, directory: RunDirectory
) -> Mapping[float, Widths]:
    """Write one file per budget, which `autoprune cost --widths` reads, and return what was given.

    Args:
        winners: share of the job's budget -> widths.
        space: names the groups.
        directory: of the run; `winner_0.5.json` is the best at half of its budget.
    """
    for share, widths in winners.items():
        directory.write_json(f"winner_{share:g}.json", space.by_name(widths))
    return winners
