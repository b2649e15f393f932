"""How the networks of a report are measured, as a job says it."""

from __future__ import annotations

from typing import Annotated, TypeAlias, final

from pydantic import BeforeValidator, Field

from autoprune.config.validation import Strict


@final
class LatencyOptions(Strict):
    """Conditions under which winner, uniform and unpruned network are measured for the report, on the job's device."""

    backend: str = Field("torch", description="a name that `autoprune parts backends` lists")
    threads: int = Field(1, ge=1, le=1024, description="CPU threads")
    batch: int = Field(0, ge=0, le=2**20, description="inputs at once; 0 as many as in the example input")
    dtype: str = Field("float32", description="float32, float16 or bfloat16")
    channels_last: bool = Field(False, description="memory format of weights and images")
    fold_batch_norm: bool = Field(False, description="fold norms into convolutions first")
    seconds: float = Field(
        5.0, gt=0, le=3600, allow_inf_nan=False, description="about how long all of it takes, at most"
    )


def _switched(value: object) -> object:
    return LatencyOptions() if value is True else None if value is False else value


Latencies: TypeAlias = Annotated[
    LatencyOptions | None, BeforeValidator(_switched, json_schema_input_type=LatencyOptions | bool | None)
]
"""The options; `true` stands for the default ones, `false` for none."""
