"""Files of options, changed as damage, mistakes and malice change them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import yaml

RAW = (
    "2020-99-99", "!!python/object/apply:os.system [ls]", "!!binary x", "!mine", "*nowhere", "&a [*a]", "[" * 300,
    "{a: " * 300, "9" * 5000, "1e400", "-1e400", ".inf", "-.inf", ".nan", "1" + "0" * 39, "0b_", "0x" + "f" * 30, "'",
    '"\\ud800"', '"\\0"', "\x07", "\u2028", "yes", "~", "~nobody/x", "/dev/zero", "'" + "x" * 5000 + "'", "<<", "=",
    "?", "- -", "x" * 300 + "/" + "y" * 300, "{a: 1, a: 2}", "1:30:00", "|", "%", "@", "`", "${", "${NOT_SET_ANYWHERE}",
    "---", "...",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 10_000, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e-300, 1e300, "",
    " ", "x", "x" * 3000, "../..", "/", "/dev/zero", "/proc/self/mem", "a:b", ":", "module:", "50%", "-5%",
    "1e999%", "5O%",
    [], {}, [[]], [None], ["x"] * 2000, [1] * 2000, {"": ""}, {"x" * 3000: 1},
    {str(i): i for i in range(2000)}, "\u202e",
    {"name": "x", "settings": {"a": 10**25}}, {"name": "random", "settings": [1]}, {"min": 2, "max": 1}, {"min": 1},
)  # fmt: skip


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where values stand, those that hold others too."""
    below = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, own in below for place in places(own, (*path, key)))]


def with_value(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of the data with another value at one place."""
    if not path:
        return value
    copied = dict(data) if isinstance(data, dict) else list(data)
    copied[path[0]] = with_value(copied[path[0]], path[1:], value)
    return copied


def mutated(data: dict[str, Any], rng: random.Random, *, as_json: bool = False) -> bytes:
    """The data as a file, changed in one or two places: in a value, a key, a line, or in single bytes."""
    dump: Callable[[Any], str] = json.dumps if as_json else lambda own: str(yaml.safe_dump(own, sort_keys=False))
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.choice(places(data)[1:] or [()])
        data = with_value(data, place, rng.choice(VALUES))
        if not isinstance(data, dict):
            break
    text, kind = dump(data), rng.randrange(6)
    if kind == 0:  # raw text in the place of a value
        place = rng.choice(places(data)[1:] or [()])
        text = dump(with_value(data, place, "MARK")).replace('"MARK"' if as_json else "MARK", rng.choice(RAW), 1)
    elif kind == 1:  # a line twice, away, or cut
        lines = text.splitlines()
        at = rng.randrange(len(lines))
        lines[at : at + 1] = rng.choice(([lines[at]] * 2, [], [lines[at][: rng.randrange(len(lines[at]) + 1)]]))
        text = "\n".join(lines)
    elif kind == 2:  # another key
        text = text.replace(rng.choice("aeiost"), rng.choice(("", "é", "xx", ":")), rng.randrange(1, 4))
    content = text.encode("utf-8", "surrogatepass")
    if kind == 3:
        at = rng.randrange(len(content) + 1)
        content = content[:at] + rng.choice((b"\xe9", b"\0", b"\xff\xfe", b"\t", b"\r")) + content[at:]
    return content[: rng.randrange(len(content) + 1)] if kind == 4 else content
