"""Sparsity trainings as a job names them: the section `sparsity`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, final

from pydantic import AfterValidator, Field, model_validator

from autoprune.config.bounds import EPOCHS, PARTS
from autoprune.config.parts import NamedPart, stands_once
from autoprune.config.validation import Strict


@final
class SparsityOptions(Strict):
    """Trainings that find widths; each stands in the verdict beside uniform. A plain list is their names."""

    methods: Annotated[tuple[NamedPart, ...], AfterValidator(stands_once)] = Field(
        (), max_length=PARTS, description="names that `autoprune parts sparsity` lists, or module:Class; empty: none"
    )
    epochs: int = Field(40, ge=1, le=EPOCHS, description="of each, from the weights of the base network")
    lr_share: float = Field(
        0.1, gt=0, le=1e6, allow_inf_nan=False, description="learning rate, as a share of the base network's"
    )
    inherits: bool | None = Field(
        None,
        description="true: the final training goes on from the weights that it left; false: only the widths are taken; "
        "None: as each method says",
    )

    @model_validator(mode="before")
    @classmethod
    def _plain_names(cls, value: Any) -> Any:
        if value is None:
            return {}
        return value if isinstance(value, Mapping | SparsityOptions) else {"methods": value}
