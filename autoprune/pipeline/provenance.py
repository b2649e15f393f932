"""Where and with what a run was made, and what has changed since."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import yaml

from autoprune.config.environment import is_withheld, variables
from autoprune.config.job import Job
from autoprune.redaction import masked
from autoprune.report.facts import flat
from autoprune.trials.run_directory import RunDirectory

_PACKAGES = ("autoprune", "torch", "numpy", "scipy", "optuna", "ray", "scikit-learn", "fvcore")


_ABSENT = object()


def provenance() -> dict[str, Any]:
    """The date, the versions and the machine that a run begins with."""
    return {
        "started": now(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
    }


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def changes(directory: RunDirectory, job: Job) -> str:
    """Which keys of the job are not those that the run in this directory was started with, and how they differ."""
    texts = ((directory / "job.yaml").read_text(), job.text)
    before, after = (dict(flat(masked(yaml.safe_load(text), references=False))) for text in texts)
    changed = [
        f"{key}: {before.get(key, '–')} before, {after.get(key, '–')} now"
        for key in {**before, **after}
        if before.get(key, _ABSENT) != after.get(key, _ABSENT) and not key.startswith(("engine.", "callbacks"))
    ]
    taken = [name for name in variables(yaml.safe_load(texts[1])) if not is_withheld(name)]
    if taken and not changed:
        return f" (its job.yaml takes values from the environment: {', '.join(taken)})"
    return f" ({', '.join(changed)})" if changed else ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
