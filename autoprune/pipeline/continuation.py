"""What a resumed run keeps of when evaluations are ended before their time, on whatever engine it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from autoprune.config.environment import expanded
from autoprune.config.stopping import MOVED, StoppingOptions
from autoprune.config.validation import validated
from autoprune.engines import STOPS, beyond
from autoprune.errors import RunError
from autoprune.pipeline.fingerprints import JOB_FORMAT, as_begun
from autoprune.pipeline.prepared import RunInputs
from autoprune.trials.run_files import read_run

FORMAT = "job_format"
"""Of `run.json`: how the job of the run is written, see `prepare.JOB_FORMAT`. A run without one has format 1."""

_RECORD = "trial_options"
"""Of a `run.json` of format 1: early stopping and limits of the engine that the run began on."""


def format_of(path: Path) -> int:
    """The format of the run, or the family, in `path`.

    Raises:
        RunError: this version does not know it.
    """
    found = read_run(path).get(FORMAT, 1)
    if isinstance(found, int) and 1 <= found <= JOB_FORMAT:
        return found
    raise RunError(
        f"{path} cannot be read: its {FORMAT} is {found!r}, and this version knows up to {JOB_FORMAT}; use the version "
        f"of autoprune that it began with (versions in its run.json), or start a new run"
    )


def going_on(run_inputs: RunInputs, path: Path, *, ended: bool = False) -> tuple[RunInputs, tuple[str, ...]]:
    """The same run_inputs as the run, or the family, in `path` goes on: stopping, and what was usual when it began.

    What the call leaves open is as the run began.

    Args:
        run_inputs: of the call.
        path: of the run, or the family.
        ended: it is only read, for which any engine will do.

    Returns:
        The run_inputs, and what is to be told about it.

    Raises:
        RunError: the engine cannot do what the run began with, or the call says something else.
    """
    job = as_begun(run_inputs.job, format_of(path))
    given = job.search
    begun, recorded = _begun_with(path)
    differing = [key for key in given.other_than(begun) if key in given.model_fields_set]
    if differing:
        raise RunError(
            f"{path} cannot be resumed with {given.told(differing)}: it was begun with {begun.told(differing)}, "
            f"and trials of the two are not comparable. Leave {', '.join(differing)} out of search, or start a new run"
        )
    if not ended and (unable := beyond(job.engine.name, begun)):
        others = ", ".join(name for name in STOPS if not beyond(name, begun))
        raise RunError(
            f"{path} cannot be resumed on the {job.engine.name} engine: it was begun with {begun.told(unable)}, which "
            f"that engine cannot keep to. Resume it with engine: {others} (--engine {others}), or start a new run"
        )
    kept = given.other_than(begun)
    told = [f"goes on with {begun.told(kept)}, as it was begun"] if kept else []
    if not recorded and not ended:
        keys = list(StoppingOptions.model_fields)
        told.append(
            f"the run keeps no record of {', '.join(keys)}, as one begun before there was one: those of its job.yaml "
            f"hold ({begun.told(keys)})"
        )
    search = given.model_copy(update=begun.model_dump())
    return replace(run_inputs, job=job.model_copy(update={"search": search})), tuple(told)


def _begun_with(path: Path) -> tuple[StoppingOptions, bool]:
    """The stopping that a run began with, and whether that is on record."""
    if format_of(path) > 1:
        return _of_job_file(path / "job.yaml", "search", {key: key for key in StoppingOptions.model_fields}), True
    record = read_run(path).get(_RECORD)
    if record is None:
        return _of_job_file(path / "job.yaml", "engine", MOVED), False
    if not isinstance(record, dict):
        raise RunError(f"{path / 'run.json'} is damaged (its {_RECORD!r} are not keys and values); start a new run")
    now = {MOVED.get(key, key): value for key, value in record.items()}
    return validated(StoppingOptions, now, f"{path / 'run.json'}: {_RECORD}"), True


def _of_job_file(path: Path, part: str, names: Mapping[str, str]) -> StoppingOptions:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RunError(f"{path} cannot be read ({type(error).__name__}); restore it, or start a new run") from None
    written: Any = content.get(part) if isinstance(content, Mapping) else None
    given = written if isinstance(written, Mapping) else {}
    found = {names[key]: value for key, value in given.items() if key in names}
    return validated(StoppingOptions, expanded(found, str(path))[0], str(path))
