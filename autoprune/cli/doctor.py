"""`autoprune doctor`: what is installed, which devices there are, where data are looked for, what can be written."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from autoprune._version import __version__

_INSTALLED_AS = {"ray": '"ray[tune]"'}
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
    given = os.environ.get("AUTOPRUNE_DATA")
    if given is None:
        return "not set; cifar10 and fashion_mnist need it, or a path in the job (digits is embedded)", "–"
    checks: dict[str, Callable[[Path], bool]] = {
        "cifar10": lambda root: any((p / "data_batch_1").is_file() for p in (root, root / "cifar-10-batches-py")),
        "fashion_mnist": lambda root: any(p.is_dir() for p in (root / "FashionMNIST" / "raw", root / "raw")),
    }
    found = [name for name, check in checks.items() if check(Path(given))]
    return f"{given}: {', '.join(found) or 'neither cifar10 nor fashion_mnist found'}", _mark(bool(found))


def _runs(path: Path) -> tuple[str, str]:
    while not path.exists():
        path = path.absolute().parent
    writable = os.access(path, os.W_OK | os.X_OK)
    return f"{'writable' if writable else 'not writable; give --run-dir'} ({path})", _mark(writable)


def _mark(good: bool) -> str:
    return "✓" if good else "✗"
