"""Parts as a job names them: a plain string, or a name with settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeAlias, final

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticSerializationError, to_jsonable_python

from autoprune.config.bounds import Name, Settings
from autoprune.config.validation import Strict, validated


class PartOptions(Strict):
    """A part and its settings; a plain string is its name."""

    name: Name
    settings: Settings = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _plain_name(cls, value: Any) -> Any:
        if not isinstance(value, str | Mapping | PartOptions):
            raise ValueError(f"must hold keys ({', '.join(cls.model_fields)}), or be a plain name")
        return {"name": value} if isinstance(value, str) else value

    @field_validator("settings")
    @classmethod
    def _as_in_a_file(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            to_jsonable_python(value)
        except (PydanticSerializationError, ValueError, RecursionError):  # RecursionError: a list inside of itself
            raise ValueError("settings must be what a job file can hold: texts, numbers, lists and mappings") from None
        return value

    @property
    def label(self) -> str:
        """The name, with the settings where there are some: `fine_tune(lr_share=0.01)`."""
        return f"{self.name}({self.told})" if self.settings else self.name

    @property
    def told(self) -> str:
        """The settings as a text, in alphabetical order, each as in a job file."""
        return ", ".join(f"{name}={json.dumps(given, default=str)}" for name, given in sorted(self.settings.items()))


ChosenPart: TypeAlias = str | Mapping[str, Any] | PartOptions
"""How Python code names a part: by its name, or as `{"name": …, "settings": {…}}`."""


@final
class NamedPart(PartOptions):
    """A part that is written as its plain name where it has no settings."""

    @model_serializer(mode="wrap")
    def _plainly(self, handler: SerializerFunctionWrapHandler) -> Any:
        return handler(self) if self.settings else self.name

    @classmethod
    def of(cls, given: ChosenPart, what: str) -> NamedPart:
        """A part given in Python.

        Raises:
            ConfigError: neither a name nor a mapping of `name` and `settings`; `what` names it.
        """
        return validated(cls, given.model_dump() if isinstance(given, PartOptions) else given, what)


@final
class AllocationOptions(PartOptions):
    """A one-shot rule; it may be called with the scores of a criterion of its own."""

    criterion: NamedPart | None = None

    @model_serializer(mode="wrap")
    def _plainly(self, handler: SerializerFunctionWrapHandler) -> Any:
        written = handler(self)
        if self.criterion is None:
            written.pop("criterion")
        return written if self.settings or self.criterion is not None else self.name

    @property
    def label(self) -> str:
        """The name, with criterion and settings where there are some: `stagewise(criterion=l1, normalise="max")`."""
        own = f"criterion={self.criterion.label}" if self.criterion is not None else ""
        told = ", ".join(part for part in (own, self.told) if part)
        return f"{self.name}({told})" if told else self.name

    @classmethod
    def of(cls, given: ChosenPart, what: str) -> Self:
        """As `NamedPart.of`."""
        return validated(cls, given.model_dump() if isinstance(given, PartOptions) else given, what)


def stands_once(parts: tuple[NamedPart, ...]) -> tuple[NamedPart, ...]:
    """The parts, which are kept by their labels: one that stood twice would be counted as two; raises ValueError."""
    for label in labels_twice(parts):
        raise ValueError(f"{label} stands twice; leave one of them out, or give it other settings")
    return parts


def labels_twice(parts: Sequence[PartOptions]) -> list[str]:
    """Labels that more than one part has, in alphabetical order."""
    labels = [part.label for part in parts]
    return sorted({label for label in labels if labels.count(label) > 1})
