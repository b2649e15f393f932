"""The law of bad input: one message, no longer than a screen, at once, and nothing is written."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mutations import VALUES, mutated, places, with_value
from pydantic import TypeAdapter
from tiny import JOB

from autoprune.config.job import Job, load_job
from autoprune.config.space import load_space_options
from autoprune.config.validation import validated
from autoprune.cost.latency.profile_files import read_profile
from autoprune.errors import SCREEN_LETTERS, SCREEN_LINES, AutopruneError
from autoprune.pipeline.names import check_names

SPACE: dict[str, Any] = {
    "min_ratio": 0.2,
    "divisor": 4,
    "ratios": [0.5, 1.0],
    "per": "block",
    "exclude": ["stem.*"],
    "tie": ["layer1.*", ["a", "b"]],
    "overrides": [{"match": "conv*", "min_channels": 2}],
    "kinds": {"heads": {"divisor": 2}},
}
WHOLE: dict[str, Any] = {
    **JOB,
    "threads": 1,
    "device": "cpu",
    "task": {"name": "classification", "settings": {}, "measure": "accuracy"},
    "space": SPACE,
    "metrics": {"peak_memory_mb": {"batch": 8}},
    "engine": {"name": "ray", "workers": 2, "resources": {"fast": 1}},
    "callbacks": ["tensorboard"],
    "search": {
        "trials": 3,
        "controller": {"name": "random", "settings": {}},
        "allocations": [{"name": "stagewise", "settings": {"normalise": "max"}, "criterion": "l1"}],
        "inherit": ["bn_recalibration"],
        "time_limit": "2h",
        "memory_limit": "4GB",
        "storage": "sqlite:///x.db",
    },
}
SWEEP = {**WHOLE, "constraints": {"flops": ["50%", {"min": "20%", "max": "25%"}], "params": [1000, "2k"]}}
PROFILE: dict[str, Any] = {
    "format": 1,
    "conditions": {"backend": "torch", "threads": 1, "batch": 1, "dtype": "float32", "device": "cpu"},
    "machine": "a machine",
    "versions": {"torch": "2"},
    "date": "2026-01-01",
    "tables": {"conv": {"alignment": 1, "grids": [{"axes": [[1, 2], [4, 8]], "ms": [[1.0, 2.0], [3.0, 4.0]]}]}},
    "features": ["network", "calls"],
    "coefficients": [1.0, 0.5],
    "networks": [{"features": [1.0, 2.0], "ms": 1.0, "rounds": [1.0, 1.1], "model": "m", "widths": [3]}],
    "error": {"networks": 3, "median": 0.1, "p90": 0.2, "spearman": 0.9, "noise": 0.01},
}


def job(path: Path) -> None:
    check_names(load_job(path))


def profile(path: Path) -> None:
    read_profile(path)


READERS: dict[str, tuple[dict[str, Any], Callable[[Path], Any], int]] = {
    "job": (WHOLE, job, 500),
    "sweep": (SWEEP, job, 200),
    "space": (SPACE, load_space_options, 400),
    "profile": (PROFILE, profile, 900),
}


def outcome(action: Callable[[], Any], what: object) -> str:
    began = time.process_time()
    try:
        action()
        said = "fine"
    except AutopruneError as error:
        text = str(error)
        assert text.count("\n") < SCREEN_LINES, what
        assert 10 < len(text) <= SCREEN_LETTERS, what
        text.encode()
        said = type(error).__name__
    assert time.process_time() - began < 2, what
    return said


@pytest.mark.parametrize("kind", READERS)
def test_a_mutated_file_is_read_or_refused_with_one_message(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, read, count = READERS[kind]
    monkeypatch.chdir(tmp_path)
    path, rng, said = tmp_path / "file", random.Random(0), Counter[str]()
    for number in range(count):
        content = mutated(data, rng, as_json=kind == "profile")
        path.write_bytes(content)
        said[outcome(lambda: read(path), (number, content[:2000]))] += 1
    assert list(tmp_path.iterdir()) == [path]
    assert said["ConfigError"] > count / 3


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", range(len(VALUES)))
def test_every_option_refuses_what_makes_no_sense_or_takes_it(number: int, every: int) -> None:
    value = VALUES[number]
    for place in places(WHOLE)[1 + number % every :: every]:
        changed = with_value(WHOLE, place, value)
        outcome(lambda changed=changed: check_names(validated(Job, changed, "job")), (place, value))


def test_every_number_has_an_upper_end_and_every_text_and_list_a_length() -> None:
    schema = TypeAdapter(Job).json_schema()
    unbounded: list[str] = []

    def look(node: Any, where: str) -> None:
        if isinstance(node, list):
            for one in node:
                look(one, where)
        if not isinstance(node, dict):
            return
        kind = node.get("type")
        bounds = {"integer": "maximum", "number": "maximum", "array": "maxItems"}
        end = bounds.get(str(kind))
        exempt = (
            "enum" in node
            or "const" in node
            or node.get("format") == "path"
            or "constraints" in where
            or "warmup" in where
        )
        if end is not None and not exempt and not {end, f"exclusiveM{end[1:]}"} & set(node):
            unbounded.append(f"{where}: {kind}")
        if kind == "string" and not exempt and not {"maxLength", "pattern"} & set(node) and where != "device":
            unbounded.append(f"{where}: {kind}")
        for name, below in node.get("properties", {}).items():
            look(below, f"{where}.{name}".strip("."))
        for key in ("items", "prefixItems", "anyOf", "additionalProperties"):
            look(node.get(key), where)

    for name, definition in {"": schema, **schema["$defs"]}.items():
        look(definition, name)
    assert not unbounded
