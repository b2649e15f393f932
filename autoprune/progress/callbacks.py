"""Who else is told what happens in a run: `Callback`, and the plain values that it is told.

Numbers, texts, tuples and mappings of them: `json.dumps(dataclasses.asdict(event))` works for every event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run began, or goes on.

    Attributes:
        id: of the run, other than that of any other run; the same when it is resumed.
        directory: the run directory.
        job: the job as `job.yaml` has it, every default filled in, without secrets.
        unit: of scores, "%", "nats", …, or "".
        resumed: it was begun before, and goes on.
        measure: what scores count, "" where nobody said.
        higher_is_better: whether a high score is a good one; all scores that are told have the measure's own sign.
    """

    id: str
    directory: str
    job: Mapping[str, Any]
    unit: str
    resumed: bool
    measure: str = ""
    higher_is_better: bool = True


@final
@dataclass(frozen=True, slots=True)
class TrialEnded:
    """A trial ended, and is in the ledger.

    Attributes:
        number: position in the order in which proposals were made, from 0.
        widths: kept channels of each group.
        origin: who proposed it: "controller", an allocation's name, or "random_baseline".
        state: "complete", "pruned" (stopped early) or "failed".
        score: as the measure counts it, see `RunStarted.higher_is_better`; None where it failed, or ended at a rung of
            another scale.
        standard_error: of the score; None if unknown.
        fidelity: share of the whole training after which the score was taken.
        costs: metric -> cost of the widths.
        seconds: wall time of the evaluation.
        error: last line of a failed trial's traceback; "" for others.
        best: best score so far of what is not uniform pruning; None before the first.
        uniform: best score so far of uniform pruning; None before the first.
        done: how many trials have ended.
        total: how many there will be.
        busy: workers that evaluate now.
    """

    number: int
    widths: tuple[int, ...]
    origin: str
    state: str
    score: float | None
    standard_error: float | None
    fidelity: float
    costs: Mapping[str, float]
    seconds: float
    error: str
    best: float | None
    uniform: float | None
    done: int
    total: int
    busy: int


@final
@dataclass(frozen=True, slots=True)
class PhaseEnded:
    """A phase of the run ended: "base network", "search", "re-scoring", ….

    Attributes:
        name: of the phase.
        seconds: that it took, those before the run was resumed included.
    """

    name: str
    seconds: float


@final
@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run ended; its directory is complete.

    Attributes:
        directory: the run directory.
        sentence: the verdict; "" for a run without final trainings.
        outcome: "better", "not distinguishable" or "worse" than uniform pruning; "" without final trainings.
        widths: the winner's.
        costs: metric -> cost of the winner.
        score: of the winner on all validation data; None where it could not be scored.
    """

    directory: str
    sentence: str
    outcome: str
    widths: tuple[int, ...]
    costs: Mapping[str, float]
    score: float | None


class Callback:
    """Told what happens in a run, in order; override what you want to hear.

    What it does changes no trial, and nothing that it is told is anyone else's. A callback that raises is reported
    once, closed, and not told anything more; the run goes on.

    It opens nothing before `run_started`. In a family of budgets one object hears of one run after the other, `close`
    between them; of a resumed run it hears only the trials that were still to be done.
    """

    def run_started(self, event: RunStarted) -> None:
        """A run began, or goes on (`event.resumed`)."""

    def trial_ended(self, event: TrialEnded) -> None:
        """A trial ended, whether it has a score or failed."""

    def phase_ended(self, event: PhaseEnded) -> None:
        """A phase ended; one that is interrupted does not."""

    def run_ended(self, event: RunEnded) -> None:
        """The run is complete; not told of one that was interrupted."""

    def close(self) -> None:
        """No more of this run follows, whether it ended or not; closing twice is harmless."""
