"""Device profiles as files: read with every number checked, written in one step."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.config.bounded_files import is_file, is_folder, shown_path
from autoprune.config.json_reader import read_plain_json
from autoprune.cost.latency.device_profile import FORMAT, Conditions, DeviceProfile, Grid, HeldOut, KernelTable
from autoprune.errors import ConfigError, shortened, suggest
from autoprune.files import replace_file


def read_profile(source: Path | str | Mapping[str, Any] | DeviceProfile) -> DeviceProfile:
    """A profile given as itself, as a mapping, or as a file.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    if isinstance(source, DeviceProfile):
        return source
    name = "the device profile" if isinstance(source, Mapping) else shown_path(Path(source))
    make = "make one with: autoprune latency profile MODEL --out FILE"
    try:
        data = source if isinstance(source, Mapping) else read_plain_json(Path(source), then=f"put it there or {make}")
    except ConfigError as error:
        raise ConfigError(f"device profile {name} cannot be read: {error}") from None
    if not isinstance(data, Mapping) or type(data.get("format")) is not int or data["format"] != FORMAT:
        given = data.get("format") if isinstance(data, Mapping) else type(data).__name__
        raise ConfigError(
            f"{name} is no device profile of format {FORMAT} (found {shortened(repr(given), 80)}); {make}"
        )
    try:
        return _from_json(data)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        what = shortened(f"{type(error).__name__}: {error}", 300)
        raise ConfigError(f"device profile {name} is incomplete or damaged ({what}); {make}") from error


def profile_fingerprint(source: Any) -> str:
    """A hash of all that a profile says, however it is given; raises what `read_profile` raises."""
    plain = json.dumps(read_profile(source).to_json(), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def write_profile(profile: DeviceProfile, path: Path) -> None:
    """Write the file, in one step.

    Raises:
        ConfigError: it cannot be written, or is a folder, a device or a pipe.
    """
    check_target(path)
    try:
        replace_file(path, json.dumps(profile.to_json(), indent=1).encode())
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}); give a file in a folder that exists"
        ) from error


def check_target(path: Path) -> None:
    """Check that a profile can be written there, before hours are spent on it; raises ConfigError where it cannot."""
    if is_folder(path):
        raise ConfigError(f"{shown_path(path)} is a folder; name a file in it")
    if os.path.lexists(path) and not is_file(path):
        raise ConfigError(f"{shown_path(path)} is no regular file; give a new file, or one to replace")
    folder = path.absolute().parent
    if not is_folder(folder):
        raise ConfigError(
            f"{shown_path(path)}: there is no folder {shown_path(folder)}; give a file in a folder that exists"
        )


def _from_json(data: Mapping[str, Any]) -> DeviceProfile:
    names = [f.name for f in fields(DeviceProfile)]
    unknown = next((str(name) for name in data if name not in (*names, "format")), None)
    if unknown is not None:
        raise ValueError(f"unknown key {shortened(unknown, 80)!r}.{suggest(unknown, names)}")
    known = {name: data[name] for name in names if name != "made_for"}
    known["made_for"] = tuple(data.get("made_for", ()))
    _check_texts(known)
    known |= {
        "conditions": Conditions(**data["conditions"]),
        "tables": {name: _table(table) for name, table in data["tables"].items()},
    }
    known |= {"features": tuple(data["features"]), "coefficients": tuple(data["coefficients"])}
    _check_numbers("coefficients", known["coefficients"], len(known["features"]))
    if known["coefficients"] and not any(known["coefficients"]):
        raise ValueError("all coefficients are 0")
    known["coefficients"] = tuple(map(float, known["coefficients"]))
    for network in data["networks"]:
        _check_numbers("features of a network", network["features"], len(known["features"]))
        _check_numbers("times of a network", [network["ms"], *network["rounds"]], 3)
    error = None if data["error"] is None else _held_out(data["error"])
    return DeviceProfile(**{**known, "networks": tuple(data["networks"]), "error": error})


def _held_out(plain: Mapping[str, Any]) -> HeldOut:
    """The error on networks held out; a rank and its like may be NaN, where there was too little to tell."""
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in plain.values())
    if not numbers or not isinstance(plain["networks"], int):
        raise ValueError("the error on networks held out is not given in numbers")
    found = HeldOut(**plain)
    if found.networks < 1 or abs(found.spearman) > 1 or not 0 <= found.median <= found.p90 <= _LARGEST:
        raise ValueError(f"the error on networks held out cannot be ({shortened(str(dict(plain)), 200)})")
    if not 0 <= found.noise <= _LARGEST:
        raise ValueError(f"the noise of networks held out cannot be {found.noise}")
    return found


def _check_texts(known: Mapping[str, Any]) -> None:
    """What is shown to people is texts; `tables` and `networks` hold what they are to hold."""
    texts = [
        known["machine"],
        known["date"],
        *known["features"],
        *known["made_for"],
        *known["versions"],
        *known["versions"].values(),
    ]
    wrong = [text for text in texts if not isinstance(text, str) or len(text) > _LONGEST]
    if wrong:
        raise ValueError(f"a text of at most {_LONGEST} characters is expected, found {shortened(repr(wrong[0]), 80)}")
    if not isinstance(known["networks"], list | tuple):
        raise ValueError(f"a list of networks is expected, found {type(known['networks']).__name__}")
    for name in ("conditions", "versions", "tables"):
        if not isinstance(known[name], Mapping):
            raise ValueError(f"{name} must hold keys and values, found {type(known[name]).__name__}")


def _table(plain: Mapping[str, Any] | None) -> KernelTable | None:
    """Times of one kernel, in as many grids as there are combinations of axes that are multiples."""
    if plain is None:
        return None
    alignment, grids = plain["alignment"], tuple(_grid(grid["axes"], grid["ms"]) for grid in plain["grids"])
    if isinstance(alignment, bool) or not isinstance(alignment, int) or not 1 <= alignment <= 1024:
        raise ValueError(f"an alignment must be a whole number from 1 to 1024, found {alignment!r}")
    if not grids or len(grids) not in (1, 2 ** len(grids[0].axes)):
        raise ValueError(f"a kernel of {len(grids[0].axes) if grids else 0} sizes has {len(grids)} grids")
    if len({len(grid.axes) for grid in grids}) > 1:
        raise ValueError("the grids of a kernel have different numbers of sizes")
    return KernelTable(alignment, grids)


def _grid(axes: Sequence[Sequence[float]], ms: Any) -> Grid:
    given = [np.array(values) for values in (*axes, ms)]
    if any(values.dtype.kind not in "iuf" for values in given if values.size):  # texts and truth values would do
        raise ValueError("sizes and times of a grid are numbers")
    grid = Grid(tuple(values.astype(float) for values in given[:-1]), given[-1].astype(float))
    if grid.ms.shape != tuple(map(len, axes)):
        raise ValueError(f"a grid of {' x '.join(str(len(axis)) for axis in axes)} sizes has {grid.ms.size} times")
    if any(not len(axis) or (np.diff(axis) <= 0).any() for axis in grid.axes):
        raise ValueError("the sizes of a grid do not ascend")
    for axis in grid.axes:
        _check_numbers("sizes of a grid", axis.ravel().tolist(), axis.size)
    _check_numbers("times of a grid", grid.ms.ravel().tolist(), grid.ms.size)
    return grid


def _check_numbers(what: str, numbers: Sequence[float], n: int) -> None:
    if len(numbers) != n:
        raise ValueError(f"{n} {what} are expected, {len(numbers)} found")
    sound = (isinstance(one, int | float) and not isinstance(one, bool) and 0 <= one <= _LARGEST for one in numbers)
    if not all(sound):
        raise ValueError(f"{what} must be 0 or more and at most {_LARGEST:g}, found {list(numbers)[:8]}")


_LARGEST, _LONGEST = 1e15, 1000
