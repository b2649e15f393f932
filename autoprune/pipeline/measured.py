"""Under a latency budget the last word is a measurement: the best candidates are run, the winner keeps its limit."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.cost.repair import BudgetedSpace
from autoprune.evaluators.base import Workbench
from autoprune.latency.finals import LatencyChoice, choose_by_latency
from autoprune.search.progress import Progress
from autoprune.search.run_directory import RunDirectory, read_json
from autoprune.space.groups import Widths
from autoprune.space.program import Example

_FILE = "latency.json"


def measured_winner(
    domain: BudgetedSpace,
    ranked: Sequence[Widths],
    bench: Workbench,
    example: Example,
    directory: RunDirectory,
    progress: Progress,
) -> Widths:
    """The best candidate that is measured inside the latency limit; the first one where no latency is limited.

    What was measured is kept in `latency.json`, so that a resumed run decides as the first one did.

    Args:
        domain: space and budget.
        ranked: candidates, the best first.
        bench: builds them.
        example: what the model was traced with.
        directory: of the run.
        progress: is told where even the fastest one is above the limit.

    Raises:
        AutopruneError: the profile is not of this machine, or a network does not run.
    """
    if (directory / _FILE).is_file():
        return LatencyChoice.from_json(read_json(directory / _FILE)).winner.widths
    choice = choose_by_latency(domain, ranked, bench.candidate, example)
    if choice is None:
        return ranked[0]
    directory.write_json(_FILE, choice.to_json())
    if not choice.kept:
        progress.note(
            f"no network was measured within latency_ms ≤ {choice.limit:.4g}; the fastest took "
            f"{choice.winner.latency.quiet:.4g}: profile this device again while nothing else runs on it"
        )
    return choice.winner.widths
