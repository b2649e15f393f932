"""What of a job may change when a run goes on, and what that leaves of the run."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoprune.config.environment import expanded, without_withheld
from autoprune.config.job import Job
from autoprune.config.stopping import NEVER, StoppingOptions
from autoprune.config.validation import read_mapping, validated
from autoprune.deprecation import MovedWarning
from autoprune.redaction import masked

IN_PLACE = (
    "search.trials",
    "search.time_budget",
    "search.rescore",
    "verdict.seeds",
    "verdict.protocols",
    "verdict.fine_tune_epochs",
    "verdict.flops_search",
    "verdict.latency",
)
"""Keys that leave every trial and every score of a run as it is: the run itself goes on."""

ANEW = (
    "constraints",
    "metrics",
    "search.controller",
    "search.allocations",
    "sparsity",
    "verdict.random_candidates",
)
"""Keys that leave base network and scores as they are, but not what is proposed: a new run begins with those."""

CONTINUED = "continued"
"""Of `run.json`: number of a continuation -> when, what changed, and what it reused."""

PLANNED_TRIALS = "planned_trials"
"""Of `run.json`: how many trials the controller was told when the run began; schedules stay as they were laid out."""

BRANCHED = "branched_from"
"""Of `run.json`: the run whose base network and scores this one began with."""

_ABSENT = object()


def job_at(path: Path) -> Job:
    """The job of the run in a directory, also of one started from Python; secrets that are not kept may be unset.

    Raises:
        ConfigError: it cannot be read.
    """
    source = path / "job.yaml"
    data = expanded(without_withheld(read_mapping(source, dumped=True)), str(source))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MovedWarning)
        return validated(Job, data, str(source), folders=(path, path.parent))


def changed_keys(before: Job, after: Job) -> dict[str, tuple[Any, Any]]:
    """Key -> (before, after) of what is not the same, secrets, engine, callbacks and stopping left out.

    Stopping is kept as it was begun, see `continuation`.
    """
    old, new = _keys(before), _keys(after)
    return {
        key: (old.get(key), new.get(key))
        for key in {**old, **new}
        if old.get(key, _ABSENT) != new.get(key, _ABSENT) and key.partition(".")[2] not in StoppingOptions.model_fields
    }


def told(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """What changed, for people."""
    return ", ".join(f"{key} {short(old)} → {short(new)}" for key, (old, new) in changed.items())


def short(value: Any) -> str:
    """A value of a job in few words."""
    if isinstance(value, list):
        return f"[{', '.join(map(short, value))}]"
    if isinstance(value, Mapping):
        if set(value) <= {"name", "settings"} and not value.get("settings"):
            return str(value.get("name"))
        return ", ".join(f"{key}: {short(own)}" for key, own in value.items()) or "nothing"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def _keys(job: Job) -> dict[str, Any]:
    """Every key of a job with its value; those of search and verdict one by one."""
    stopping = {"search": job.search.model_copy(update=NEVER.model_dump())}
    data = masked(json.loads(json.dumps(job.model_copy(update=stopping).model_dump(mode="json"))), references=False)
    found = {key: value for key, value in data.items() if key not in ("search", "verdict")}
    for part in ("search", "verdict"):
        found |= {f"{part}.{key}": value for key, value in data[part].items()}
    found.setdefault("verdict.latency", True)  # by default it is left out, and is not off
    return found
