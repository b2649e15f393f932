"""The `engine:` part of a job file: where evaluations run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from autoprune.config.bounds import Name, Text
from autoprune.config.stopping import Seconds
from autoprune.config.validation import Strict


class EngineOptions(Strict):
    """Where evaluations run; a plain string is its name. All keys but the name are for ray."""

    name: Literal["local", "ray"] = Field("local", description="one after the other in this process, or workers on ray")
    address: Name | None = Field(None, description="auto or HOST:PORT; None: an instance of its own")
    workers: int | None = Field(None, ge=1, le=100_000, description="None: as many as the resources hold")
    cpus_per_worker: float = Field(1, ge=0, le=10_000, description="logical CPUs, fractions allowed")
    gpus_per_worker: float | None = Field(
        None, ge=0, le=1000, description="fractions share a GPU; None: 1 where the device is a GPU, else 0"
    )
    resources: dict[Name, Annotated[float, Field(gt=0, le=1e12)]] = Field(
        default_factory=dict, max_length=100, description="custom resources of the cluster that each worker takes"
    )
    retries: int = Field(2, ge=0, le=1000, description="further attempts at an evaluation whose worker was lost")
    wait_for_workers: Seconds = Field(
        1800, description="how long a run without any worker waits for one before it ends: seconds, or 90s, 30min, 2h"
    )
    storage_path: Text | None = Field(
        None, description="checkpoints of trainings: a folder all nodes see, or s3://…; None: in the run directory"
    )
    dashboard: Name = Field("127.0.0.1", description="host that ray's dashboard listens on, for an instance of its own")

    @model_validator(mode="before")
    @classmethod
    def _plain_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _of_this_engine(self) -> EngineOptions:
        given = [key for key in sorted(self.model_fields_set - {"name"}) if getattr(self, key) != default_of(self, key)]
        if self.name == "local" and given:
            raise ValueError(f"the local engine has no {given[0]}; set name: ray, or leave it out")
        return self


def default_of(options: BaseModel, key: str) -> Any:
    """What an option is where nothing is said."""
    return type(options).model_fields[key].get_default(call_default_factory=True)
