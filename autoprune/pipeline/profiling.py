"""The command that adds to a device profile what the model of a job needs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from autoprune.config.job import Job
from autoprune.config.space import SpaceOptions
from autoprune.export.safetensors import PYTHON_MODEL
from autoprune.space.tracing.program import Example


def profile_command(job: Job, example: Example, profile: Any) -> str:
    """`autoprune latency profile …` with everything that it needs, as far as the job says it.

    Args:
        job: names the model, its arguments and its space.
        example: what the model is traced with.
        profile: the setting of `latency_ms`; a file where it is a path.
    """
    given = job.model.factory == PYTHON_MODEL
    words = ["autoprune", "latency", "profile", "module:factory" if given else job.model.factory]
    for name, value in job.model.arguments.items():
        words += ["--arg", f"{name}={value if isinstance(value, str) else json.dumps(value, default=str)}"]
    words += ["--input", input_text(example)]
    if job.space != SpaceOptions():
        words += ["--space", "SPACE.yaml" if job.space_file is None else str(job.space_file)]
    words += ["--add-to", str(profile) if isinstance(profile, str | Path) else "FILE"]
    command = shlex.join(words)
    if given:
        command += " (module:factory is a function of yours that returns this model)"
    if "SPACE.yaml" in words:
        command += " (SPACE.yaml is a file with the keys of this job's space)"
    return command


def input_text(example: Example) -> str:
    """The inputs as `--input` writes them."""
    if isinstance(example, Mapping):
        return ";".join(f"{name}={_one(value)}" for name, value in example.items())
    return ";".join(map(_one, example)) if isinstance(example, tuple) else _one(example)


def _one(value: object) -> str:
    if not isinstance(value, Tensor):
        return "…"
    kind = "" if value.is_floating_point() else "ones:" if bool((value == 1).all()) else "ids:"
    return kind + ",".join(map(str, value.shape))
