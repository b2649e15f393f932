"""The house: no circle of files, the picture is that of the imports, files are short, and the books name every room."""

from __future__ import annotations

import ast
import importlib.util
import re
import statistics
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from autoprune.cli.parts import KINDS
from autoprune.registry import load_object

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "autoprune").rglob("*.py"))
LONG = 300


@pytest.fixture(scope="module")
def picture() -> ModuleType:
    pytest.importorskip("grimp", reason="import-linter is not installed")
    spec = importlib.util.spec_from_file_location("draw_architecture", ROOT / "docs/draw_architecture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Names that import each other, by whatever way."""
    names = sorted(imports)
    number = {name: i for i, name in enumerate(names)}
    pairs = [(number[a], number[b]) for a in names for b in imports[a] if b in number]
    rows, columns = zip(*pairs, strict=True) if pairs else ((), ())
    matrix = csr_matrix((np.ones(len(pairs)), (rows, columns)), shape=(len(names), len(names)))
    _, labels = connected_components(matrix, connection="strong")
    groups = [[name for name, own in zip(names, labels, strict=True) if own == label] for label in set(labels)]
    return [group for group in groups if len(group) > 1]


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": set()}) == []


def test_no_files_import_each_other() -> None:
    grimp = pytest.importorskip("grimp", reason="import-linter is not installed")
    graph = grimp.build_graph("autoprune", exclude_type_checking_imports=True, cache_dir=None)
    assert circles({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}) == []


def test_the_picture_is_that_of_the_imports(picture: ModuleType) -> None:
    text = (ROOT / "docs/architecture.svg").read_text()
    drawn = {tuple(pair) for pair in re.findall(r'id="(\w+)-to-(\w+)"', text)}
    assert drawn == set(picture.arrows(picture.imports())), "draw it anew: make picture"
    for row in picture.layers():
        for name in row:
            assert re.search(rf">{name}( +\(\d+\))?<", text), f"{name} is missing; draw it anew: make picture"


def test_arrows_leave_out_what_follows(picture: ModuleType) -> None:
    assert picture.arrows({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == [("a", "b"), ("b", "c")]
    depth = {name: number for number, row in enumerate(picture.layers()) for name in row}
    assert all(depth[a] <= depth[b] for a, b in picture.arrows(picture.imports()))


def test_the_page_and_the_lint_name_every_package(picture: ModuleType) -> None:
    page = (ROOT / "docs/architecture.md").read_text().partition("## What is where")[2]
    names = {name for row in picture.layers() for name in row}
    there = {
        path.stem for path in (ROOT / "autoprune").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert there - {"__init__"} == names
    assert [name for name in sorted(names - {"_version"}) if f"`{name}`" not in page] == []


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md", "README.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (ROOT / page).parent.joinpath(link).exists(), link


def test_files_are_short_and_long_ones_say_why() -> None:
    lines = sorted(len(file.read_text().splitlines()) for file in FILES)
    assert statistics.median(lines) < 120
    assert lines[int(0.9 * len(lines))] < 260
    for file in FILES:
        text = file.read_text()
        if len(text.splitlines()) > LONG:
            told = ast.get_docstring(ast.parse(text)) or ""
            assert "Longer than others" in told, f"{file} is longer than {LONG} lines and does not say why at its top"


def test_the_table_of_parts_has_a_row_for_each_kind() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Adding a part")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ][2:]
    told = {row[0]: row for row in rows}
    for table in (load_object(path) for path in KINDS.values()):
        row = told[table.kind]
        assert row[-1] == f"`{table.group}`"
    for kind, folder, *_ in rows:
        assert (ROOT / "autoprune" / folder.split("`")[1]).is_dir(), kind
