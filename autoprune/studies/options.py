"""What a comparison is asked to compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from autoprune.config.job import Job
from autoprune.config.parts import AllocationOptions, NamedPart, labels_twice
from autoprune.config.validation import Strict, validated


class CompareOptions(Strict):
    """Budgets, and the parts that are combined under each; None stands for a set of cheap ones."""

    budgets: tuple[float, ...] = Field((75.0, 50.0, 25.0), min_length=1, description="percent of the full network")
    metric: str = Field("flops", description="what the budgets limit")
    allocations: tuple[AllocationOptions, ...] | None = Field(None, min_length=1)
    criteria: tuple[NamedPart, ...] | None = Field(None, min_length=1)
    inherit: tuple[tuple[NamedPart, ...], ...] | None = Field(None, min_length=1)

    @field_validator("budgets")
    @classmethod
    def _percent(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        for budget in value:
            if not 0 < budget < 100:
                raise ValueError(f"a budget is a percentage above 0 and below 100 of the full network, got {budget:g}")
        return tuple(sorted(set(value), reverse=True))

    @model_validator(mode="after")
    def _nothing_twice(self) -> CompareOptions:
        for field in ("allocations", "criteria"):
            if twice := labels_twice(getattr(self, field) or ()):
                raise ValueError(f"{field} names {twice[0]} twice")
        return self

    def family(self, job: Job) -> Job:
        """The job with one constraint for each budget, in place of its own."""
        limits = [f"{budget:g}%" for budget in self.budgets]
        given: Mapping[str, Any] = {self.metric: limits[0] if len(limits) == 1 else limits}
        changed = {
            **job.model_dump(),
            "constraints": given,
            "engine": job.engine,
            "callbacks": (),
            "verdict": {**job.verdict.model_dump(), "seeds": 0},
        }
        return validated(Job, changed, "compare")


def chain_label(inherit: tuple[NamedPart, ...]) -> str:
    """How a list of inheritance methods is called: their labels with a plus in between, "none" for no method."""
    return " + ".join(part.label for part in inherit) or "none"
