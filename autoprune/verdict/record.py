"""Everything a finished run holds, as plain values; reports and exports read this and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, final

import yaml

from autoprune.controllers.base import Trial, TrialState
from autoprune.search.run_directory import read_json
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.serial import from_json

Outcome = Literal["better", "not distinguishable", "worse"]


@final
@dataclass(frozen=True, slots=True)
class Arm:
    """One architecture of the final comparison.

    Attributes:
        name: "winner", "uniform_all", "uniform_inner" or "random_median".
        widths: member of the space.
        costs: metric -> cost.
        search_score: the evaluator's score on all validation data; None where it could not be scored.
        evaluations: how many evaluations this arm was chosen from (1 for a uniform network).
    """

    name: str
    widths: Widths
    costs: Mapping[str, float]
    search_score: float | None
    evaluations: int


@final
@dataclass(frozen=True, slots=True)
class FinalTraining:
    """One final network: an arm, trained by a protocol with a seed, scored once on test."""

    arm: str
    protocol: str
    seed: int
    epochs: int
    score: float
    seconds: float


@final
@dataclass(frozen=True, slots=True)
class Comparison:
    """Winner against the better uniform network under one protocol, paired by seed.

    Attributes:
        protocol: "fine_tune", "scratch_e", ….
        rival: the uniform arm with the higher mean.
        difference: mean of winner minus rival over the seeds.
        low, high: 95 % confidence interval of the difference (paired t).
        seeds: number of pairs.
        outcome: "better" if the interval lies above 0, "worse" if below, else "not distinguishable".
    """

    protocol: str
    rival: str
    difference: float
    low: float
    high: float
    seeds: int
    outcome: Outcome


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison with uniform pruning in one sentence, and the numbers behind it (first one decides)."""

    sentence: str
    outcome: Outcome
    comparisons: tuple[Comparison, ...]


@final
@dataclass(frozen=True, eq=False)
class RunRecord:
    """A finished run.

    Attributes:
        directory: the run directory.
        job: the job as it ran, every default filled in.
        provenance: versions, device, seeds, dates, seconds of each phase, fingerprints.
        space: what was searched.
        budget: per limit: metric, upper, full, smallest.
        full_costs: metric -> cost of the unpruned network.
        base: scores of the unpruned base network: "validation", "test" (None without a test set), "epochs", "seconds".
        unit: of every score: "%" or "".
        test_split: False where the final scores come from the search's own score function.
        trials: the ledger, in proposal order, baselines included (their origin says so).
        posterior: number of the trial -> (mean, standard deviation) of the smoothed score.
        arms: winner first.
        finals: every final training.
        verdict: None for a run without final trainings.
    """

    directory: Path
    job: Mapping[str, Any]
    provenance: Mapping[str, Any]
    space: SearchSpace
    budget: tuple[Mapping[str, Any], ...]
    full_costs: Mapping[str, float]
    base: Mapping[str, Any]
    unit: str
    test_split: bool
    trials: tuple[Trial, ...]
    posterior: Mapping[int, tuple[float, float]]
    arms: tuple[Arm, ...]
    finals: tuple[FinalTraining, ...]
    verdict: Verdict | None

    @property
    def winner(self) -> Arm:
        """The architecture the search chose."""
        return self.arms[0]


def write_record(record: RunRecord) -> dict[str, Any]:
    """Return what `result.json` holds: all of the record that no other file of the run holds."""
    return {
        "budget": list(record.budget),
        "full_costs": dict(record.full_costs),
        "base": dict(record.base),
        "unit": record.unit,
        "test_split": record.test_split,
        "trials": [asdict(trial) for trial in record.trials],
        "posterior": {str(number): value for number, value in record.posterior.items()},
        "arms": [asdict(arm) for arm in record.arms],
        "finals": [asdict(final) for final in record.finals],
        "verdict": None if record.verdict is None else asdict(record.verdict),
    }


def read_record(directory: Path) -> RunRecord:
    """Read a finished run from its directory.

    Raises:
        RunError: the run has not ended, or a file of it is missing or damaged.
    """
    result = read_json(directory / "result.json")
    verdict = result["verdict"]
    return RunRecord(
        directory=directory,
        job=yaml.safe_load((directory / "job.yaml").read_text()),
        provenance=read_json(directory / "run.json"),
        space=from_json(read_json(directory / "space.json")),
        budget=tuple(result["budget"]),
        full_costs=result["full_costs"],
        base=result["base"],
        unit=result["unit"],
        test_split=result["test_split"],
        trials=tuple(_trial(trial) for trial in result["trials"]),
        posterior={int(number): (mean, sd) for number, (mean, sd) in result["posterior"].items()},
        arms=tuple(Arm(**{**arm, "widths": tuple(arm["widths"])}) for arm in result["arms"]),
        finals=tuple(FinalTraining(**final) for final in result["finals"]),
        verdict=verdict
        and Verdict(verdict["sentence"], verdict["outcome"], tuple(Comparison(**c) for c in verdict["comparisons"])),
    )


def _trial(data: dict[str, Any]) -> Trial:
    return Trial(**{**data, "widths": tuple(data["widths"]), "state": TrialState(data["state"])})
