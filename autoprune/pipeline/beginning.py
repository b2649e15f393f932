"""What is written when a run, or a family of them, begins."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from autoprune.config.job import Job
from autoprune.pipeline.branching import begun_from, first_of, learned_by
from autoprune.pipeline.changes import BRANCHED
from autoprune.pipeline.continuation import FORMAT
from autoprune.pipeline.family import TRAINED, Family, parts
from autoprune.pipeline.fingerprints import JOB_FORMAT, job_fingerprint
from autoprune.pipeline.prepared import Prepared
from autoprune.pipeline.provenance import provenance
from autoprune.space.serial import to_json
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.run_files import has_begun, read_run


def begin(prepared: Prepared, directory: RunDirectory, family: Family | None, source: Path | None = None) -> None:
    """Write what a run is, run.json last: it marks a run as begun."""
    job = prepared.run_inputs.job
    directory.write_text("job.yaml", job.text)
    directory.write_json("space.json", to_json(prepared.space, origin=prepared.origin))
    directory.update_run(
        id=f"{directory.path.name}-{secrets.token_hex(4)}",
        **provenance(),
        seed=job.seed,
        device=str(prepared.run_inputs.task.device),
        fingerprints=dict(prepared.fingerprints),
        begun_with=learned_by(source) if source is not None else None if family is None else family.handed_on,
        seconds={},
        **{TRAINED: _trained(prepared, family, source)},
        **({} if source is None else {BRANCHED: begun_from(source)}),
        **{FORMAT: JOB_FORMAT},
    )


def _trained(prepared: Prepared, family: Family | None, source: Path | None) -> Any:
    """Whether the base network is as given: as of the run that it is taken from, where that says it."""
    base = first_of(source) if source is not None else None if family is None else family.base
    known = read_run(base) if base is not None and has_begun(base) else {}
    return known.get(TRAINED, prepared.run_inputs.trained)


def begin_family(job: Job, directory: RunDirectory, source: Path | None = None) -> None:
    """Write what a family is; its runs begin when it is their turn."""
    directory.write_text("job.yaml", job.text)
    directory.update_run(
        id=f"{directory.path.name}-{secrets.token_hex(4)}",
        **provenance(),
        fingerprints={"job": job_fingerprint(job)},
        family=[part.name for part in parts(job, directory.path)],
        **({} if source is None else {BRANCHED: begun_from(source)}),
        **{FORMAT: JOB_FORMAT},
    )
