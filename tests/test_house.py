"""Laws of the whole code: names, lengths."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LONGEST_FILE = 260
LONGEST_FUNCTION = 60


def files() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "autoprune").rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), path.read_text()


def test_no_two_classes_have_one_name() -> None:
    places = defaultdict(list)
    for path, text in files():
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(path)
    assert len(places) > 200
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert twice == {}


def test_a_long_file_says_why_at_its_top() -> None:
    silent = [
        (path, len(text.splitlines()))
        for path, text in files()
        if len(text.splitlines()) > LONGEST_FILE
        and "Longer than others" not in (ast.get_docstring(ast.parse(text)) or "")
    ]
    assert silent == []


def test_functions_are_short_without_their_documentation() -> None:
    long = []
    for path, text in files():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                words = len((ast.get_docstring(node, clean=False) or "").splitlines())
                if node.end_lineno - node.lineno + 1 - words > LONGEST_FUNCTION:  # type: ignore[operator]
                    long.append((path, node.name))
    assert long == []


def layers() -> list[list[set[str]]]:
    """The layers of the contracts that have some, from the top down."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return [[set(re.findall(r"\w+", row)) for row in one["layers"]] for one in contracts if one["type"] == "layers"]


def test_contributing_tells_the_layers_that_are_held() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Layers")[2].partition("## Adding a part")[0]
    block = "".join(line for line in text.splitlines() if line.startswith("    "))
    (inside,) = re.findall(r"Inside the space: `([^`]*)`", text)
    told = [[set(re.findall(r"\w+", row)) for row in one.split(">")] for one in (block, inside)]
    assert told == layers()


def test_the_page_of_the_house_names_each_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = {
        name for row in text.splitlines() if row.startswith("|") for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    packages = set().union(*layers()[0])
    assert named == packages - {"_version"}
    for path in re.findall(r"\]\(\.\./([\w/.]+)\)", text):
        assert (ROOT / path).exists()


def test_each_package_has_a_layer_and_so_a_box_in_the_picture() -> None:
    there = {path.stem for path in (ROOT / "autoprune").iterdir() if path.is_dir() or path.suffix == ".py"}
    assert there - {"__init__", "__pycache__", "py"} == set().union(*layers()[0])
