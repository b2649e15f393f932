"""Hashes by which a resumed run knows its job and its model again."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn

from autoprune.config.job import Job
from autoprune.config.parts import AllocationOptions, NamedPart
from autoprune.config.stopping import NEVER
from autoprune.redaction import masked

JOB_FORMAT = 3
"""Of the jobs of runs that begin now. In 1 early stopping and limits were the engine's and not fingerprinted. Before 3
a search without `inherit` recalibrated batch norms only, and its allocations were `EARLIER_ALLOCATIONS` by default."""

EARLIER_INHERITANCE = (NamedPart(name="bn_recalibration"),)
EARLIER_ALLOCATIONS = (AllocationOptions(name="global_threshold"),)


def as_begun(job: Job, job_format: int) -> Job:
    """A job, what it leaves open being what was usual when its run began."""
    search = job.search
    if job_format >= 3:
        return job
    usual: dict[str, Any] = {}
    if search.inherit is None:
        usual["inherit"] = EARLIER_INHERITANCE
    if "allocations" not in search.model_fields_set:
        usual["allocations"] = EARLIER_ALLOCATIONS
    return job.model_copy(update={"search": search.model_copy(update=usual)}) if usual else job


def job_fingerprint(job: Job, *, job_format: int = JOB_FORMAT) -> str:
    """A hash of every option of a job but its secrets, which may change; as runs of this format have it."""
    return _digest(json.dumps(masked(_dumped(job, job_format), references=False), sort_keys=True))


def same_job(recorded: object, job: Job, *, job_format: int = JOB_FORMAT) -> bool:
    """Whether a fingerprint is that of a job, also one made when secrets were part of it, or stopping was not."""
    dumped = json.dumps(_dumped(job, job_format), sort_keys=True)
    return recorded in (job_fingerprint(job, job_format=job_format), _digest(dumped))


def _dumped(job: Job, job_format: int) -> dict[str, Any]:
    """Every option; keys that are younger than some runs are there only where they say something."""
    dumped: dict[str, Any] = _as_written(job, job_format).model_dump(mode="json")
    for key in ("density", "rank", "bits", "resolution") if isinstance(dumped.get("space"), dict) else ():
        if dumped["space"].get(key) is None:
            dumped["space"].pop(key, None)
    return dumped


def _as_written(job: Job, job_format: int) -> Job:
    """A job, what was not written in this format being left open."""
    if job_format < 3 and job.search.inherit == EARLIER_INHERITANCE:
        job = job.model_copy(update={"search": job.search.model_copy(update={"inherit": None})})
    if job_format == 1:
        job = job.model_copy(update={"search": job.search.model_copy(update=NEVER.model_dump())})
    return job


def weights_fingerprint(model: nn.Module) -> str:
    """A hash of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
