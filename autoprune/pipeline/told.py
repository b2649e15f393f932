"""What callbacks are told of a run, from what the run knows."""

from __future__ import annotations

import yaml

from autoprune.controllers.base import Trial
from autoprune.progress.callbacks import RunEnded, RunStarted, TrialEnded
from autoprune.texts import ScoreScale, last_line
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.session import SearchSession
from autoprune.verdict.record import RunRecord


def run_started(directory: RunDirectory, scale: ScoreScale, *, resumed: bool) -> RunStarted:
    """A run began or goes on in this directory."""
    job = yaml.safe_load((directory / "job.yaml").read_text())
    return RunStarted(
        directory.recorded("id"), str(directory.path), job, scale.unit, resumed, scale.name, scale.higher_is_better
    )


def trial_ended(trial: Trial, session: SearchSession, busy: int, scale: ScoreScale) -> TrialEnded:
    """A trial ended, and so the session stands now."""
    return TrialEnded(
        number=trial.number,
        widths=tuple(map(int, trial.widths)),
        origin=trial.origin,
        state=trial.state.value,
        score=None if trial.at_rung else _shown(trial.score, scale),
        standard_error=trial.standard_error,
        fidelity=trial.fidelity,
        costs={metric: float(cost) for metric, cost in trial.costs.items()},
        seconds=trial.seconds,
        error=last_line(trial.error),
        best=_shown(session.best, scale),
        uniform=_shown(session.uniform, scale),
        done=len(session.trials),
        total=session.total,
        busy=busy,
    )


def run_ended(record: RunRecord) -> RunEnded:
    """A run ended with this record."""
    winner, verdict = record.winner, record.verdict
    return RunEnded(
        directory=str(record.directory),
        sentence="" if verdict is None else verdict.sentence,
        outcome="" if verdict is None else verdict.outcome,
        widths=tuple(map(int, winner.widths)),
        costs={metric: float(cost) for metric, cost in winner.costs.items()},
        score=_shown(winner.search_score, record.search_scale),
    )


def _shown(score: float | None, scale: ScoreScale) -> float | None:
    """As the measure counts it."""
    return None if score is None else scale.turned(score)
