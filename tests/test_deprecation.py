"""Names that moved still work, and say where they went."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from autoprune import deprecation
from autoprune.deprecation import MovedWarning, deprecated


@pytest.mark.parametrize("old", deprecation._MODULES)
def test_a_module_is_found_by_its_old_name(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"autoprune.{old}", raising=False)
    new = f"autoprune.{deprecation._MODULES[old]}"
    with pytest.warns(MovedWarning, match=rf"autoprune\.{old} has moved \(2026-11-29\): use {new}; .* after 2027-"):
        found = importlib.import_module(f"autoprune.{old}")
    assert found is importlib.import_module(new)
    assert (found.__name__, found.__spec__.name) == (new, new)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("package", "name", "now"),
    [
        ("autoprune.config", "SpaceOptions", "autoprune.config.space"),
        ("autoprune.config", "load_job", "autoprune.config.job"),
        ("autoprune.api", "resume", "autoprune.api.search"),
        ("autoprune.api", "SearchResult", "autoprune.api.result"),
        ("autoprune.evaluators.base", "Workbench", "autoprune.evaluators.candidates:CandidateFactory"),
    ],
)
def test_a_name_is_found_in_its_old_place(package: str, name: str, now: str) -> None:
    code = (
        f"import warnings\nwith warnings.catch_warnings(record=True) as seen:\n    warnings.simplefilter('always')\n"
        f"    from {package} import {name} as found\nimport importlib\n"
        f"module, _, attribute = {now!r}.partition(':')\n"
        f"assert found is getattr(importlib.import_module(module), attribute or {name!r}), found\n"
        f"assert 'has moved' in str(seen[0].message), seen"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_warning_points_at_the_line_that_imports() -> None:
    with pytest.warns(MovedWarning) as seen:
        exec(compile("from autoprune.config import Override", "plugin.py", "exec"), {})
    assert {warning.filename for warning in seen} == {"plugin.py"}


def test_unknown_names_stay_unknown() -> None:
    with pytest.raises(ImportError):
        importlib.import_module("autoprune.nonsense")
    with pytest.raises(AttributeError, match=r"module 'autoprune\.config' has no attribute 'nonsense'"):
        importlib.import_module("autoprune.config").nonsense  # noqa: B018


def test_a_function_that_goes_works_and_says_so() -> None:
    @deprecated(use="new()", since="2026-11-29", until="2027-06-01")
    def old(a: int, *, b: int = 1) -> int:
        """Add."""
        return a + b

    with pytest.warns(
        MovedWarning, match=r"old has moved \(2026-11-29\): use new\(\); the old name goes after 2027-06-01"
    ):
        assert old(1, b=2) == 3
    assert old.__doc__ == "Add."
