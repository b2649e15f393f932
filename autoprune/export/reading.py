"""The files of an export, read as what a stranger may have written: whole, of sensible size, and nothing but data."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from autoprune.errors import RunError
from autoprune.texts import printable

EXPORT_ANEW = "export the run anew: autoprune export RUN --to FOLDER"

_LARGEST = {".yaml": 2**20, ".json": 2**30}  # bytes
_MOST, _DEEPEST = 200_000, 40  # values of a YAML file, each alias counted in full


def read_data(path: Path) -> dict[str, Any]:
    """Keys and values of a YAML or JSON file.

    Raises:
        RunError: it is missing, no plain file, too large, damaged, or holds something else.
    """
    try:
        content = _bounded(path).decode()
        data = _parsed_yaml(content) if path.suffix == ".yaml" else json.loads(content, object_pairs_hook=_unique)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}; give the folder of an export") from error
    except yaml.YAMLError as error:
        raise damaged(path, " ".join(str(error).split())) from error
    except RecursionError as error:
        raise damaged(path, "lists in lists beyond any sense") from error
    except (ValueError, OverflowError, TypeError, AttributeError) as error:
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


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _twice([name for name, _ in pairs])
    return made


def _twice(names: Sequence[str]) -> ValueError:
    return ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice")


def _parsed_yaml(text: str) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, ())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int], inside: tuple[int, ...]) -> int:
    """How many values a node stands for; an alias is as many as what it stands for."""
    if id(node) in inside:
        raise ValueError("it holds itself")
    if len(inside) > _DEEPEST:
        raise ValueError(f"values lie more than {_DEEPEST} levels deep")
    if id(node) not in known:
        within, inner = (*inside, id(node)), node.value
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in inner if isinstance(key, yaml.ScalarNode)]
            if len(set(names)) < len(names):
                raise ValueError(
                    f"the key {next(name for name in names if names.count(name) > 1)!r} stands there twice"
                )
            parts = [part for pair in inner for part in pair]
        else:
            parts = inner if isinstance(node, yaml.SequenceNode) else []
        known[id(node)] = 1 + sum(_count(part, known, within) for part in parts)
        if known[id(node)] > _MOST:
            raise ValueError(f"it stands for more than {_MOST:,} values")
    return known[id(node)]
