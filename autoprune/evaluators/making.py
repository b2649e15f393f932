"""Evaluators by name, with those that their settings name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from autoprune.config.parts import NamedPart, PartOptions
from autoprune.config.settings import bind
from autoprune.errors import ConfigError, RegistryError, blame
from autoprune.evaluators import EVALUATORS
from autoprune.evaluators.base import Evaluator, Guarded, Kind
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.rungs import Rungs
from autoprune.texts import ScoreScale


def make_evaluator(name: str, factory: CandidateFactory, settings: Mapping[str, Any]) -> Evaluator:
    """Build an evaluator by name, and those that its settings name; see `Guarded` for what it may not do.

    Raises:
        RegistryError: unknown name.
        ConfigError: a setting that the evaluator does not have, or a value out of range.
    """
    return _made(name, factory, settings, "evaluator.settings")


def check_evaluator(name: str, settings: Mapping[str, Any]) -> None:
    """Check names and names of settings, nested ones too, before anything is built; raises as `make_evaluator`."""
    _check(name, settings, "evaluator.settings")


def kind_of(name: str, settings: Mapping[str, Any]) -> Kind:
    """The kind of an evaluator that is not built: it trains if one that its settings name does."""
    trains = any(getattr(part, "kind", "short") == "training" for part, _ in _parts(name, settings))
    return "training" if trains else "short"


def scale_of(name: str, settings: Mapping[str, Any]) -> ScoreScale | None:
    """What the scores of an evaluator that is not built count; None: what the task's count."""
    found: ScoreScale | None = getattr(EVALUATORS.get(counted(name, settings).name), "scale", None)
    return found


def is_relative(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether scores of an evaluator that is not built are comparable within one run alone."""
    return bool(getattr(EVALUATORS.get(counted(name, settings).name), "relative", False))


def counted(name: str, settings: Mapping[str, Any]) -> NamedPart:
    """The evaluator whose scores count: the one named, or the last of those that its settings name."""
    nested = _nested(name, settings, "evaluator.settings").get(getattr(EVALUATORS.get(name), "counts", ""))
    if nested is None or not nested.steps:
        return NamedPart(name=name, settings=dict(settings))
    _, last = nested.steps[-1]
    return counted(last.name, last.settings)


def rungs_of(name: str, settings: Mapping[str, Any]) -> Rungs | None:
    """The rungs of an evaluator that is not built, None where it has none.

    Raises:
        ConfigError: its settings give none that are possible.
    """
    find = getattr(EVALUATORS.get(name), "rungs", None)
    found: Rungs | None = None if find is None else find(settings)
    return found


def prepares_something(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether an evaluator that is not built, or one that its settings name, has something to prepare."""
    asked = ((getattr(part, "prepares", None), own) for part, own in _parts(name, settings))
    return any(prepares is not None and prepares(own) for prepares, own in asked)


def _parts(name: str, settings: Mapping[str, Any]) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """The classes of an evaluator and of all that its settings name, each with its own settings."""
    yield EVALUATORS.get(name), settings
    for nested in _nested(name, settings, "evaluator.settings").values():
        for _, chosen in nested.steps:
            yield from _parts(chosen.name, chosen.settings)


class _Nested(NamedTuple):
    """What a setting holds that names other evaluators."""

    steps: Sequence[tuple[str, PartOptions]]  # place among the settings, and what is named there
    listed: bool


def _nested(name: str, settings: Mapping[str, Any], path: str) -> dict[str, _Nested]:
    """Setting -> the evaluators that it names, for those settings that do.

    Raises:
        RegistryError: unknown name.
        ConfigError: something that names no evaluator.
    """
    found = {}
    for key in getattr(EVALUATORS.get(name), "nests", ()):
        if key not in settings:
            continue
        given = settings[key]
        listed = isinstance(given, list | tuple)
        places = {f"{key}[{i}]": one for i, one in enumerate(given)} if listed else {key: given}
        steps = [(place, NamedPart.of(one, f"{path}.{place}")) for place, one in places.items()]
        found[key] = _Nested(steps, listed)
    return found


def _check(name: str, settings: Mapping[str, Any], path: str) -> None:
    bind(EVALUATORS, name, settings)
    rungs_of(name, settings)
    for nested in _nested(name, settings, path).values():
        for place, chosen in nested.steps:
            with _at(f"{path}.{place}"):
                _check(chosen.name, chosen.settings, f"{path}.{place}.settings")
    check = getattr(EVALUATORS.get(name), "check_settings", None)
    if inspect.ismethod(check):  # not an instance's, of something that is no `Evaluator`
        with blame(
            ConfigError, f"evaluator {name!r} cannot check its settings", then="Correct them, or the evaluator."
        ):
            check(settings)


def _made(name: str, factory: CandidateFactory, settings: Mapping[str, Any], path: str) -> Guarded:
    parts: dict[str, Evaluator] = {}
    built = dict(settings)
    for key, nested in _nested(name, settings, path).items():
        for place, chosen in nested.steps:
            with _at(f"{path}.{place}"):
                parts[place] = _made(chosen.name, factory, chosen.settings, f"{path}.{place}.settings")
        made = [parts[place] for place, _ in nested.steps]
        built[key] = made if nested.listed else made[0]
    return Guarded(name, bind(EVALUATORS, name, built), factory, parts)


@contextmanager
def _at(path: str) -> Iterator[None]:
    """Inside, errors say at which place among the settings; the innermost place is told."""
    try:
        yield
    except (ConfigError, RegistryError) as error:
        if str(error).startswith("evaluator.settings"):
            raise
        raise type(error)(f"{path}: {error}") from error
