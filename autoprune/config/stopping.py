"""The keys of `search:` that say when an evaluation is ended before its time; they change trials.

What each engine can keep to is the table `engines.STOPS`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, ValidationError

from autoprune.config.validation import Strict
from autoprune.deprecation import warn_moved

EarlyStopping: TypeAlias = Literal["none", "asha", "hyperband"]

MOVED = {"scheduler": "early_stopping", "time_limit": "time_limit", "memory_limit": "memory_limit"}
"""Keys that `engine:` had until 2026-11-29 -> what they are in `search:`."""

_BYTES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def _bytes(value: object) -> object:
    """Bytes of a text such as "4GB" or "512 MB", in powers of 10; a number of bytes as it is."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([kMGT]?)B\s*", value, re.ASCII)
    if not found:
        raise ValueError("memory must be a number with its unit: B, kB, MB, GB or TB")
    return int(float(found[1]) * _BYTES[found[2]])


def _seconds(value: object) -> object:
    """Seconds of a text such as "90s", "10 min" or "2h"; a number of seconds as it is."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*(s|min|h|d)?\s*", value, re.ASCII)
    if not found:
        raise ValueError("a time must be a number of seconds, or a number with its unit: s, min, h or d")
    return float(found[1]) * _SECONDS[found[2] or "s"]


Seconds: TypeAlias = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False), BeforeValidator(_seconds)]
"""A time above 0: a number of seconds, or a text with its unit."""


class StoppingOptions(Strict):
    """When an evaluation is ended before its time."""

    early_stopping: EarlyStopping = Field(
        "none",
        description="none, asha or hyperband: trainings that lag behind are stopped at a ninth or a third of their "
        "epochs; only the controller's proposals, only evaluators that train",
    )
    time_limit: Seconds | None = Field(
        None,
        description="of one evaluation, not of the whole search (that is time_budget): seconds, or 90s, 10min, 2h; "
        "past it the trial has failed",
    )
    memory_limit: Annotated[int, Field(gt=0, le=10**15), BeforeValidator(_bytes)] | None = Field(
        None, description="of each worker, such as 4GB, on Linux; past it the trial has failed"
    )

    @property
    def stopping(self) -> StoppingOptions:
        """These three alone."""
        return StoppingOptions(**{key: getattr(self, key) for key in StoppingOptions.model_fields})

    def other_than(self, other: StoppingOptions) -> list[str]:
        """The keys in which the two differ."""
        return [key for key in StoppingOptions.model_fields if getattr(self, key) != getattr(other, key)]

    def told(self, keys: list[str]) -> str:
        """These keys and their values, for messages."""
        return ", ".join(f"{key}: {'none' if (value := getattr(self, key)) is None else _short(value)}" for key in keys)


NEVER = StoppingOptions()
"""Every evaluation is carried out to its end."""


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def moved_to_search(engine: object, search: object) -> tuple[object, object]:
    """The parts `engine` and `search` of a job as they are written now; the old keys of `engine` are warned of.

    Args:
        engine: as it was given: a name, keys and values, or what is no engine, which others refuse.
        search: likewise.

    Raises:
        ValueError: both say something else about the same.
    """
    old = [key for key in MOVED if isinstance(engine, Mapping) and key in engine]
    if not old or not (search is None or isinstance(search, Mapping)):
        return engine, search
    assert isinstance(engine, Mapping)
    changed: dict[str, Any] = dict(search or {})
    for key in old:
        now = MOVED[key]
        if now in changed and not _same(now, changed[now], engine[key]):
            raise ValueError(
                f"engine.{key} is {engine[key]} and search.{now} is {changed[now]}: the two are the same option; leave "
                f"engine.{key} out"
            )
        changed.setdefault(now, engine[key])
        warn_moved(f"engine.{key}", f"search.{now}")
    return {key: value for key, value in engine.items() if key not in old}, changed


def _same(key: str, one: object, other: object) -> bool:
    try:
        first, second = (StoppingOptions.model_validate({key: value}) for value in (one, other))
    except ValidationError:
        return one == other
    return not first.other_than(second)
