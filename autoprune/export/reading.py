"""The files of an export, read as what a stranger may have written: whole, of sensible size, and nothing but data."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from autoprune.config.json_reader import no_key_twice
from autoprune.config.yaml_reader import parse_yaml
from autoprune.errors import ConfigError, RunError
from autoprune.texts import printable

EXPORT_ANEW = "export the run anew: autoprune export RUN --to FOLDER"

_LARGEST = {".yaml": 2**20, ".json": 2**30}  # bytes
_MOST_VALUES = 200_000  # of a YAML file: a network of 40,000 layers


def read_data(path: Path) -> dict[str, Any]:
    """Keys and values of a YAML or JSON file.

    Raises:
        RunError: it is missing, no plain file, too large, damaged, or holds something else.
    """
    try:
        content = _bounded(path).decode()
        if path.suffix == ".yaml":
            data = parse_yaml(content, path.name, most_values=_MOST_VALUES, dumped=True)
        else:
            data = json.loads(content, object_pairs_hook=no_key_twice)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}; give the folder of an export") from error
    except RecursionError as error:
        raise damaged(path, "lists in lists beyond any sense") from error
    except (ConfigError, ValueError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(data, dict):
        raise damaged(path, f"it holds a {type(data).__name__}, not keys and values")
    return data


def damaged(path: Path, why: str) -> RunError:
    """The error of a file that is not as it was written."""
    return RunError(f"{path} is damaged ({printable(why, 300)}); {EXPORT_ANEW}")


def _bounded(path: Path) -> bytes:
    found, most = path.stat(), _LARGEST[path.suffix]
    if not stat.S_ISREG(found.st_mode):
        raise RunError(f"{path} is no plain file; give the folder of an export")
    if found.st_size > most:
        raise RunError(f"{path} has {found.st_size:,} bytes, at most {most:,} are read; {EXPORT_ANEW}")
    return path.read_bytes()
