"""What a resumed run keeps of the engine that it began on: the options that change how trials end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from autoprune.config.engine import EngineOptions, default_of
from autoprune.config.environment import expanded
from autoprune.config.validation import validated
from autoprune.errors import RunError
from autoprune.files import read_json
from autoprune.pipeline.prepare import RunInputs

RECORD = "trial_options"
"""Of `run.json`: what `EngineOptions.of_trials` was when the run began."""


def going_on(run_inputs: RunInputs, path: Path) -> tuple[RunInputs, tuple[str, ...]]:
    """The same run_inputs with the engine's options on which the run, or the family, in `path` goes on.

    What the call leaves open is as the run began.

    Returns:
        The run_inputs, and what is to be told about it.

    Raises:
        RunError: the engine cannot do what the run began with, or the call says something else.
    """
    given = run_inputs.job.engine
    begun, recorded = _begun_with(path)
    lacking = [key for key, value in begun.of_trials.items() if value != default_of(begun, key)]
    if given.name == "local" and lacking:
        raise RunError(
            f"{path} cannot be resumed on the local engine: it was begun with {_told(begun, lacking)}, which the local "
            f"engine does not have. Resume it with engine: ray (--engine ray), or start a new run"
        )
    differing = [key for key in begun.of_trials if key in given.model_fields_set and _differs(begun, given, key)]
    if differing:
        raise RunError(
            f"{path} cannot be resumed with {_told(given, differing)}: it was begun with {_told(begun, differing)}, "
            f"and trials of the two are not comparable. Leave {', '.join(differing)} out of engine, or start a new run"
        )
    kept = [key for key in lacking if _differs(begun, given, key)]
    told = [f"goes on with {_told(begun, kept)}, as it was begun"] if kept else []
    if not recorded:
        told.append(
            f"the run keeps no record of {', '.join(begun.of_trials)}, as one begun before there was one: those of its "
            f"job.yaml hold ({_told(begun, [*begun.of_trials])})"
        )
    engine = given.model_copy(update={key: getattr(begun, key) for key in kept})
    job = run_inputs.job.model_copy(update={"engine": engine})
    return replace(run_inputs, job=job), tuple(told)


def _begun_with(path: Path) -> tuple[EngineOptions, bool]:
    """The engine that a run began on, as far as it changes trials, and whether that is on record."""
    record = read_json(path / "run.json").get(RECORD)
    if record is None:
        return _of_job_file(path / "job.yaml"), False
    if not isinstance(record, dict):
        raise RunError(f"{path / 'run.json'} is damaged (its {RECORD!r} are not keys and values); start a new run")
    return validated(EngineOptions, {**record, "name": "ray"}, f"{path / 'run.json'}: {RECORD}"), True


def _of_job_file(path: Path) -> EngineOptions:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{path} cannot be read ({type(error).__name__}); restore it, or start a new run") from None
    engine: Any = content.get("engine") if isinstance(content, Mapping) else None
    return validated(EngineOptions, expanded(engine or {}, str(path))[0], str(path))


def _differs(one: EngineOptions, other: EngineOptions, key: str) -> bool:
    return bool(getattr(one, key) != getattr(other, key))


def _told(options: EngineOptions, keys: list[str]) -> str:
    return ", ".join(f"{key}: {'none' if (value := getattr(options, key)) is None else value}" for key in keys)
