from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

import autoprune

ROOT = Path(__file__).parent.parent


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_layers_hold() -> None:
    cli = pytest.importorskip("importlinter.cli", reason="import-linter is not installed")
    code = f"from {cli.__name__} import lint_imports; raise SystemExit(lint_imports())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def imported(tree: ast.Module) -> Iterator[str]:
    """Modules, and names that may be modules, that a file imports when it runs, in functions too."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        todo += ast.iter_child_nodes(node)


def test_no_files_import_each_other_in_a_circle() -> None:
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "autoprune").rglob("*.py")
    }
    graph = networkx.DiGraph(
        (name, other)
        for name, path in names.items()
        for other in imported(ast.parse(path.read_text()))
        if other in names and other != name and not name.startswith(other + ".")
    )
    assert len(graph) > 100
    assert [sorted(circle) for circle in networkx.strongly_connected_components(graph) if len(circle) > 1] == []


def test_files_are_short() -> None:
    """Half of them below 120 lines, nine of ten below 260."""
    lengths = sorted(len(path.read_text().splitlines()) for path in (ROOT / "autoprune").rglob("*.py"))
    assert lengths[len(lengths) // 2] < 120
    assert lengths[len(lengths) * 9 // 10] < 260


def test_public_names_are_few_and_there() -> None:
    assert len(set(autoprune.__all__) - {"__version__"}) <= 15
    assert all(getattr(autoprune, name) is not None for name in autoprune.__all__)
    assert set(dir(autoprune)) == set(autoprune.__all__)
    with pytest.raises(AttributeError, match="no attribute 'serch'"):
        _ = autoprune.serch  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "scipy", "optuna", "ray", "pydantic", "rich", "typer")
    assert python(f"import sys, autoprune; print([name for name in {heavy} if name in sys.modules])") == "[]"


@pytest.mark.parametrize(
    "first",
    [
        "import autoprune",
        "import autoprune.progress.base as progress",
        "import autoprune; autoprune.search; autoprune.trace",
    ],
)
def test_search_can_be_called_and_imported_from_in_any_order(first: str) -> None:
    code = (
        f"{first}\nimport autoprune, inspect\nimport autoprune.trials.selection as select\n"
        "from autoprune import search\n"
        "print(callable(autoprune.search), callable(search), list(inspect.signature(autoprune.search).parameters)[:2])"
    )
    assert python(code) == "True True ['model', 'example_input']"


def test_public_functions_take_keywords_after_the_second_argument() -> None:
    for function in (autoprune.trace, autoprune.load, autoprune.resume, autoprune.search):
        parameters = list(inspect.signature(function).parameters.values())
        assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters[2:])
