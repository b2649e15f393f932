"""Device profiles as files: read with every number checked, written in one step."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.cost.latency.device_profile import FORMAT, Conditions, DeviceProfile, Grid, HeldOut, KernelTable
from autoprune.errors import ConfigError
from autoprune.files import replace_file


def read_profile(source: Path | str | Mapping[str, Any] | DeviceProfile) -> DeviceProfile:
    """A profile given as itself, as a mapping, or as a file.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    if isinstance(source, DeviceProfile):
        return source
    name = "the device profile" if isinstance(source, Mapping) else str(source)
    make = "make one with: autoprune latency profile MODEL --out FILE"
    try:
        data = source if isinstance(source, Mapping) else json.loads(Path(source).read_text())
    except OSError as error:
        raise ConfigError(f"device profile {name} cannot be read ({error.strerror}); put it there or {make}") from error
    except ValueError as error:
        raise ConfigError(f"device profile {name} is no JSON file ({error}); {make}") from error
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        given = data.get("format") if isinstance(data, Mapping) else type(data).__name__
        raise ConfigError(f"{name} is no device profile of format {FORMAT} (found {given!r}); {make}")
    try:
        return _from_json(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ConfigError(f"device profile {name} is incomplete or damaged ({what}); {make}") from error


def profile_fingerprint(source: Any) -> str:
    """A hash of all that a profile says, however it is given; raises what `read_profile` raises."""
    plain = json.dumps(read_profile(source).to_json(), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def write_profile(profile: DeviceProfile, path: Path) -> None:
    """Write the file, in one step.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        replace_file(path, json.dumps(profile.to_json(), indent=1).encode())
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}); give a file in a folder that exists"
        ) from error


def _from_json(data: Mapping[str, Any]) -> DeviceProfile:
    def table(plain: Mapping[str, Any] | None) -> KernelTable | None:
        if plain is None:
            return None
        return KernelTable(int(plain["alignment"]), tuple(_grid(grid["axes"], grid["ms"]) for grid in plain["grids"]))

    known = {f.name: data[f.name] for f in fields(DeviceProfile) if f.name != "made_for"}
    known["made_for"] = tuple(map(str, data.get("made_for", ())))
    known |= {
        "conditions": Conditions(**data["conditions"]),
        "tables": {n: table(t) for n, t in data["tables"].items()},
    }
    known |= {"features": tuple(data["features"]), "coefficients": tuple(map(float, data["coefficients"]))}
    _check_numbers("coefficients", known["coefficients"], len(known["features"]))
    if known["coefficients"] and not any(known["coefficients"]):
        raise ValueError("all coefficients are 0")
    for network in data["networks"]:
        _check_numbers("features of a network", network["features"], len(known["features"]))
        _check_numbers("times of a network", [network["ms"], *network["rounds"]], 3)
    error = data["error"]
    return DeviceProfile(
        **{**known, "networks": tuple(data["networks"]), "error": None if error is None else HeldOut(**error)}
    )


def _grid(axes: Sequence[Sequence[float]], ms: Any) -> Grid:
    grid = Grid(tuple(np.array(axis, dtype=float) for axis in axes), np.array(ms, dtype=float))
    if grid.ms.shape != tuple(map(len, axes)):
        raise ValueError(f"a grid of {' x '.join(str(len(axis)) for axis in axes)} sizes has {grid.ms.size} times")
    if any((np.diff(axis) <= 0).any() for axis in grid.axes):
        raise ValueError("the sizes of a grid do not ascend")
    _check_numbers("times of a grid", grid.ms.ravel().tolist(), grid.ms.size)
    return grid


def _check_numbers(what: str, numbers: Sequence[float], n: int) -> None:
    if len(numbers) != n:
        raise ValueError(f"{n} {what} are expected, {len(numbers)} found")
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        raise ValueError(f"{what} must be 0 or more, found {list(numbers)[:8]}")
