from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

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


def test_public_names_are_few_and_there() -> None:
    assert len(autoprune.__all__) <= 15
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
