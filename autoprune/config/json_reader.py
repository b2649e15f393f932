"""JSON within bounds, as `yaml_reader` reads YAML: no key twice, no nesting without end."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from autoprune.config.bounded_files import read_text, shown_path
from autoprune.errors import ConfigError, shortened

MOST_BYTES = 64 * 2**20
"""Of a file that a program wrote: a profile of many networks has a few million."""


def read_plain_json(path: Path, *, then: str = "give the path of a JSON file") -> Any:
    """What a JSON file holds.

    Args:
        path: of the file.
        then: what to do where it is none.

    Raises:
        ConfigError: the file cannot be read or is no JSON.
    """
    text = read_text(path, most=MOST_BYTES, then=then)
    try:
        return json.loads(text, object_pairs_hook=no_key_twice)
    except RecursionError:
        problem = "lists or objects stand too deep inside each other"
    except ValueError as error:
        problem = shortened(str(error), 300)
    raise ConfigError(f"{shown_path(path)} is no JSON file ({problem}); {then}")


def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The `object_pairs_hook` of `json.loads`; raises ValueError where a key stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {shortened(twice, 80)!r} stands twice in one object")
    return found
