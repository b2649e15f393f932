"""Everything a finished run holds, as plain values; reports and exports read this and nothing else.

Longer than others, as the values and their form on disk are read side by side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, final

import yaml

from autoprune.controllers.base import Trial, TrialState
from autoprune.errors import RunError, SpaceError
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.serial import from_json
from autoprune.texts import ScoreScale
from autoprune.trials.run_directory import check_begun, check_search
from autoprune.trials.run_files import is_there, provenance_of, whole, whole_json

LATENCY, MEASURED_LATENCY = "latency.json", "measured_latency.json"
"""Files of a run: what was measured under a latency limit, and where there is none."""

ARMS = "arms"
"""The folder of a run in which what the winner was compared with is exported, one folder for each."""

WINNER = "winner"
"""The arm that the search chose."""

Conclusion = Literal["better", "not distinguishable", "worse"]


@final
@dataclass(frozen=True, slots=True)
class Arm:
    """One architecture of the final comparison.

    Attributes:
        name: "winner", "uniform_all", "uniform_inner", "random_median" or, under a latency budget, "flops_search".
        widths: member of the space.
        costs: metric -> cost.
        search_score: the evaluator's score on all validation data; None where it could not be scored.
        evaluations: how many evaluations this arm was chosen from (1 for a uniform network).
        method: the sparsity training that found the widths, with its settings; "" for all others.
        start: whose weights its final training goes on from, where it inherits some: a name in
            `CandidateFactory.starts`, "" for the base network's.
    """

    name: str
    widths: Widths
    costs: Mapping[str, float]
    search_score: float | None
    evaluations: int
    method: str = ""
    start: str = ""


@final
@dataclass(frozen=True, slots=True)
class FinalTraining:
    """One final network: an arm, trained by a protocol with a seed, scored on test.

    Attributes:
        arm, protocol, seed, epochs, seconds: which and how.
        score: of the network as it is exported.
        as_trained: its score before its running statistics were recalibrated; None where they were not.
        noise: standard error of the score; None if unknown.
    """

    arm: str
    protocol: str
    seed: int
    epochs: int
    score: float
    seconds: float
    as_trained: float | None = None
    noise: float | None = None


@final
@dataclass(frozen=True, slots=True)
class Comparison:
    """Winner against the better uniform network under one protocol, paired by seed.

    Attributes:
        protocol: its label (`PartOptions.label`): "fine_tune", "fine_tune(lr_share=0.01)", ….
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
    outcome: Conclusion


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """The comparison with uniform pruning in one sentence, and the numbers behind it (first one decides)."""

    sentence: str
    outcome: Conclusion
    comparisons: tuple[Comparison, ...]


@final
@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Uniform pruning (one ratio on every group) at another budget, scored like the winner."""

    costs: Mapping[str, float]
    score: float


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
        base: scores of the unpruned base network: "validation", "test" (None without a test set), "test_examples",
            "epochs", "seconds".
        scale: what scores count, and how they are read.
        own_scale: the same of scores of the search, where that is something else (a proxy's); None: it is not.
        test_split: False where the final scores come from the search's own score function.
        trials: the ledger, in proposal order, baselines included (their origin says so).
        posterior: number of the trial -> (mean, standard deviation) of the smoothed score.
        arms: winner first.
        finals: every final training.
        uniform_curve: uniform pruning at smaller and larger budgets, by ascending cost.
        verdict: None for a run without final trainings.
        chances: name of an arm -> probability, by the smoothed model of the search's scores, that the winner is better.
        winners: share of the budget -> the best widths inside it, where the controller searched for several budgets.
        no_training: why no network can be trained on these data; "" where they can.
        latency: under a latency budget that was measured: limit, candidates and compared networks, as in
            `latency.json`.
        measured: latencies of winner, uniform and unpruned network where none is limited, as in
            `measured_latency.json`; None where the job wants none.
    """

    directory: Path
    job: Mapping[str, Any]
    provenance: Mapping[str, Any]
    space: SearchSpace
    budget: tuple[Mapping[str, Any], ...]
    full_costs: Mapping[str, float]
    base: Mapping[str, Any]
    scale: ScoreScale
    test_split: bool
    trials: tuple[Trial, ...]
    posterior: Mapping[int, tuple[float, float]]
    arms: tuple[Arm, ...]
    finals: tuple[FinalTraining, ...]
    verdict: Verdict | None
    uniform_curve: tuple[CurvePoint, ...] = ()
    chances: Mapping[str, float] = field(default_factory=dict)
    latency: Mapping[str, Any] | None = None
    measured: Mapping[str, Any] | None = None
    winners: Mapping[float, Widths] = field(default_factory=dict)
    no_training: str = ""
    own_scale: ScoreScale | None = None

    @property
    def search_scale(self) -> ScoreScale:
        """What scores of the search count."""
        return self.own_scale or self.scale

    @property
    def unit(self) -> str:
        """Of every score: "%", "nats", …, or ""."""
        return self.scale.unit

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
        "measure": {"name": record.scale.name, "higher_is_better": record.scale.higher_is_better},
        **({} if record.own_scale is None else {"search_measure": asdict(record.own_scale)}),
        "no_training": record.no_training,
        "test_split": record.test_split,
        "trials": [asdict(trial) for trial in record.trials],
        "posterior": {str(number): value for number, value in record.posterior.items()},
        "arms": [asdict(arm) for arm in record.arms],
        "finals": [asdict(final) for final in record.finals],
        "uniform_curve": [asdict(point) for point in record.uniform_curve],
        "verdict": None if record.verdict is None else _verdict_json(record.verdict),
        "chances": dict(record.chances),
        "winners": {str(share): list(widths) for share, widths in record.winners.items()},
    }


def read_record(directory: Path) -> RunRecord:
    """Read a finished run from its directory.

    Raises:
        RunError: there is no run, it has not ended, a file of it is missing or damaged, or it is a comparison.
    """
    if not (directory / "result.json").is_file():
        check_begun(directory)
    check_search(directory)
    result, space = whole_json(directory, "result.json"), whole_json(directory, "space.json")
    provenance = provenance_of(directory)
    try:
        job = yaml.safe_load(whole(directory, "job.yaml"))
        latency, measured = (
            whole_json(directory, name) if is_there(directory, name) else None for name in (LATENCY, MEASURED_LATENCY)
        )
        record = _record(directory, result, job=job, provenance=provenance, space=from_json(space), latency=latency)
        return replace(record, measured=measured)
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, SpaceError) as error:
        raise RunError(
            f"{directory} is damaged ({type(error).__name__}: {error}); restore its files, or start a new run"
        ) from error


def _record(
    directory: Path,
    result: dict[str, Any],
    *,
    job: dict[str, Any],
    provenance: dict[str, Any],
    space: SearchSpace,
    latency: dict[str, Any] | None,
) -> RunRecord:
    return RunRecord(
        directory=directory,
        job=job,
        provenance=provenance,
        space=space,
        budget=tuple(result["budget"]),
        full_costs=result["full_costs"],
        base=result["base"],
        scale=ScoreScale(unit=result["unit"], **result.get("measure", {})),  # runs of older versions have none
        own_scale=ScoreScale(**result["search_measure"]) if "search_measure" in result else None,
        no_training=result.get("no_training", ""),
        test_split=result["test_split"],
        trials=tuple(_trial(trial) for trial in result["trials"]),
        posterior={int(number): (mean, sd) for number, (mean, sd) in result["posterior"].items()},
        arms=tuple(Arm(**{**arm, "widths": tuple(arm["widths"])}) for arm in result["arms"]),
        finals=tuple(FinalTraining(**final) for final in result["finals"]),
        uniform_curve=tuple(CurvePoint(**point) for point in result["uniform_curve"]),
        verdict=result["verdict"] and _verdict(result["verdict"]),
        chances=result["chances"],
        latency=latency,
        winners={float(share): tuple(widths) for share, widths in result["winners"].items()},
    )


def _verdict(data: dict[str, Any]) -> Verdict:
    infinite: dict[str, Any] = {"low": -math.inf, "high": math.inf}
    comparisons = (
        Comparison(**{key: infinite[key] if value is None else value for key, value in comparison.items()})
        for comparison in data["comparisons"]
    )
    return Verdict(data["sentence"], data["outcome"], tuple(comparisons))


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    """JSON knows no infinity: an interval without a bound has null there."""
    comparisons = [
        {key: None if value in (math.inf, -math.inf) else value for key, value in asdict(comparison).items()}
        for comparison in verdict.comparisons
    ]
    return {**asdict(verdict), "comparisons": comparisons}


def _trial(data: dict[str, Any]) -> Trial:
    partial = tuple(tuple(pair) for pair in data.get("partial", ()))
    return Trial(**{**data, "widths": tuple(data["widths"]), "state": TrialState(data["state"]), "partial": partial})
