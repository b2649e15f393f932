"""A run of autoprune as a run of MLflow: the job as parameters, each trial as a step, the verdict as tags."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, final

from autoprune.errors import ConfigError
from autoprune.progress.callbacks import Callback, PhaseEnded, RunEnded, RunStarted, TrialEnded
from autoprune.redaction import masked

_TAG = "autoprune_run"
"""By it a resumed run finds the run of MLflow that it began."""

_LONGEST = 500
"""Characters of a parameter that every version of MLflow takes."""

_AT_ONCE = 100
"""Parameters that MLflow takes in one request."""


@final
class MLflow(Callback):
    """Logs to an MLflow tracking server or folder; a resumed run goes on in the MLflow run that it began.

    MLflow's own notion of an active run is left alone: your code may have one.

    Args:
        tracking_uri: where to log; None: MLFLOW_TRACKING_URI, or MLflow's default.
        experiment: the experiment's name; made where there is none.

    Raises:
        ConfigError: mlflow is not installed.
    """

    def __init__(self, *, tracking_uri: str | None = None, experiment: str = "autoprune") -> None:
        try:
            import mlflow
            import mlflow.entities
        except ImportError as error:
            raise ConfigError(
                "callback 'mlflow' needs the package mlflow, which cannot be imported here: "
                "pip install 'autoprune[mlflow]', or leave the callback out"
            ) from error
        self._mlflow, self._uri, self._experiment = mlflow, tracking_uri, experiment
        self._client: Any = None
        self._run = ""

    def run_started(self, event: RunStarted) -> None:
        """Find the run, or make one with the job as its parameters."""
        self._client = self._mlflow.MlflowClient(tracking_uri=self._uri)
        found = self._client.get_experiment_by_name(self._experiment)
        place = self._client.create_experiment(self._experiment) if found is None else found.experiment_id
        mark = hashlib.sha256(event.id.encode()).hexdigest()[:16]
        known = self._client.search_runs([place], filter_string=f"tags.{_TAG} = '{mark}'") if event.resumed else []
        if known:
            self._run = known[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        tags = {_TAG: mark, "autoprune_directory": event.directory}
        name = str(event.job.get("name", "search"))
        self._run = self._client.create_run(place, tags=tags, run_name=name).info.run_id
        given = [self._mlflow.entities.Param(_key(name), text[:_LONGEST]) for name, text in _flat(masked(event.job))]
        for start in range(0, len(given), _AT_ONCE):
            self._client.log_batch(self._run, params=given[start : start + _AT_ONCE])

    def trial_ended(self, event: TrialEnded) -> None:
        """Log the scores and the costs; the step is the number of trials that ended."""
        values = {"score/trial": event.score, "score/best": event.best, "score/uniform": event.uniform}
        values |= {f"cost/{metric}": cost for metric, cost in event.costs.items()}
        self._log({**values, "seconds_per_trial": event.seconds}, step=event.done)

    def phase_ended(self, event: PhaseEnded) -> None:
        """Log its seconds."""
        self._log({f"seconds/{event.name}": event.seconds})

    def run_ended(self, event: RunEnded) -> None:
        """Log the winner and the verdict, and mark the run as finished."""
        self._log({"winner/score": event.score, **{f"winner/{name}": cost for name, cost in event.costs.items()}})
        told = {"verdict": event.sentence, "outcome": event.outcome, "widths": "-".join(map(str, event.widths))}
        tags = [self._mlflow.entities.RunTag(f"autoprune_{name}", text) for name, text in told.items() if text]
        self._client.log_batch(self._run, tags=tags)
        self._terminate("FINISHED")

    def close(self) -> None:
        """A run that has not ended is marked as killed."""
        if self._run:
            self._terminate("KILLED")

    def _terminate(self, status: str) -> None:
        run, self._run = self._run, ""
        self._client.set_terminated(run, status=status)

    def _log(self, values: Mapping[str, float | None], *, step: int = 0) -> None:
        now = int(time.time() * 1000)
        metric = self._mlflow.entities.Metric
        logged = [metric(_key(name), float(v), now, step) for name, v in values.items() if v is not None]
        self._client.log_batch(self._run, metrics=logged)


def _flat(data: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Key with dots -> text, for each value of nested mappings; lists stay whole."""
    if isinstance(data, Mapping) and data:
        for key, own in data.items():
            yield from _flat(own, f"{path}.{key}" if path else str(key))
    else:
        yield path, str(data)


def _key(name: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^\w./ -]", "_", name)
