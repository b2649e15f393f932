"""`autoprune doctor`: what is installed, which devices there are, where data are looked for, what can be written."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from autoprune._version import __version__
from autoprune.config.bounded_files import is_folder, shown_path
from autoprune.errors import AutopruneError

_INSTALLED_AS = {"ray": '"ray[tune]"'}
_FOUND, _MISSING = "found", "not found"
_PACKAGES = {"torch": "torch", "numpy": "numpy", "optuna": "optuna", "ray": "ray", "fvcore": "fvcore"}


def examine() -> list[Any]:
    """Return a table of checks; a problem says what to do."""
    table = Table("check", "found", "", title=f"autoprune {__version__}")
    table.add_row("python", platform.python_version(), _mark(sys.version_info >= (3, 11)))
    for package, module in _PACKAGES.items():
        table.add_row(package, *_package(package, module))
    table.add_row("device", *_device())
    table.add_row("AUTOPRUNE_DATA", *_data())
    table.add_row("runs/", *_runs(Path("runs")))
    return [table]


def _package(package: str, module: str) -> tuple[str, str]:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return f"cannot be imported: {error}; pip install {_INSTALLED_AS.get(package, package)}", "✗"
    return version(package), "✓"


def _device() -> tuple[str, str]:
    import torch

    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())), "✓"
    return f"CPU, {torch.get_num_threads()} threads (no CUDA device)", "✓"


def _data() -> tuple[str, str]:
    from autoprune.data import DATA_SETS

    states = {name: _state(name) for name in DATA_SETS.names()}
    given = os.environ.get("AUTOPRUNE_DATA")
    lost = bool(given) and not is_folder(Path(given or ""))
    told = [f"{shown_path(Path(given))}{' is no folder' * lost}" if given else "not set"]
    told += [
        f"{state}: {', '.join(name for name, own in states.items() if own == state)}"
        for state in dict.fromkeys(filter(None, states.values()))
    ]
    if _MISSING in states.values():
        told.append("they need AUTOPRUNE_DATA, or a path in the job")
    return "; ".join(told), "✗" if lost else "–" if set(states.values()) - {_FOUND, ""} else "✓"


def _state(data_set: str) -> str:
    """What can be said of a data set; nothing where it cannot say itself."""
    from autoprune.data import is_there

    try:
        found = is_there(data_set)
    except AutopruneError as error:
        return f"broken ({error})"
    return "" if found is None else _FOUND if found else _MISSING


def _runs(path: Path) -> tuple[str, str]:
    while not path.exists():
        path = path.absolute().parent
    writable = os.access(path, os.W_OK | os.X_OK)
    return f"{'writable' if writable else 'not writable; give --run-dir'} ({path})", _mark(writable)


def _mark(good: bool) -> str:
    return "✓" if good else "✗"
