from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from autoprune import registry
from autoprune.allocation import ALLOCATIONS
from autoprune.controllers import CONTROLLERS
from autoprune.cost import METRICS
from autoprune.data import DATA_SETS
from autoprune.errors import ConfigError, RegistryError
from autoprune.evaluators import EVALUATORS
from autoprune.importance import CRITERIA
from autoprune.registry import Registry, load_object
from autoprune.training import PROTOCOLS
from autoprune.zoo import ZOO

ALL = [ALLOCATIONS, CONTROLLERS, CRITERIA, DATA_SETS, EVALUATORS, METRICS, PROTOCOLS, ZOO]
SHELF = Registry("tool", {"join": "os.path:join", "gone": "os.path:no_such", "lost": "no_such_module:x"}, group="shelf")


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.kind)
def test_every_name_in_every_table_is_there(table: Registry) -> None:
    assert table.names()
    assert all(table.get(name) is not None for name in table.names())


@pytest.mark.parametrize("table", ALL, ids=lambda table: table.kind)
def test_an_unknown_name_lists_the_known_ones(table: Registry) -> None:
    with pytest.raises(RegistryError, match=f"unknown {table.kind} 'zzz'; choose one of ") as caught:
        table.get("zzz")
    assert all(name in str(caught.value) for name in table.names())
    assert isinstance(caught.value, ConfigError)


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(RegistryError, match="Did you mean 'join'"):
        SHELF.get("jion")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("os.path", "is not of the form 'module:attribute'"),
        (":join", "is not of the form"),
        ("os.path:", "is not of the form"),
        ("no_such_module:x", "'no_such_module' was not found; is its folder on PYTHONPATH"),
        ("os.path:jion", "has no 'jion'. Did you mean 'join'"),
    ],
)
def test_what_cannot_be_loaded_is_named(path: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        load_object(path)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\ny = = 2\n", r"SyntaxError: invalid syntax \(.*{name}\.py:2\)"),
        ("x = 1\n\nraise OSError('first\\nno disk.')\n", r"OSError: first no disk \(.*{name}\.py:3\)"),
        ("import no_such_thing\n", r"module 'no_such_thing' was not found"),
    ],
)
def test_a_module_that_fails_is_told_by_its_error_and_line(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"broken_{abs(hash(code))}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RegistryError, match=message.format(name=name)):
        load_object(f"{name}:x")


def test_attributes_may_be_nested() -> None:
    assert load_object("autoprune.registry:Registry.names") is Registry.names


def offer(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    found = EntryPoints(EntryPoint(name, value, "shelf") for name, value in points)

    def entry_points(**_: Any) -> EntryPoints:
        return found

    monkeypatch.setattr(registry, "entry_points", entry_points)


def test_other_packages_add_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("split", "os.path:split"))
    assert SHELF.names()[-1] == "split"
    assert SHELF.get("split")("a/b") == ("a", "b")
    with pytest.raises(RegistryError, match="Did you mean 'split'"):
        SHELF.get("splti")


@pytest.mark.parametrize("points", [[("join", "os.path:split")], [("a", "os:sep"), ("a", "os:linesep")]])
def test_a_name_offered_twice_is_refused(monkeypatch: pytest.MonkeyPatch, points: list[tuple[str, str]]) -> None:
    offer(monkeypatch, *points)
    with pytest.raises(RegistryError, match="offered twice"):
        SHELF.names()


def test_a_name_of_ours_that_another_package_claims_is_refused_where_it_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer(monkeypatch, ("join", "os.path:split"))
    with pytest.raises(RegistryError, match=r"'join' is offered twice, .* by 'os\.path:split'; uninstall"):
        SHELF.check("join")


def test_listing_names_imports_nothing_heavy() -> None:
    modules = ("allocation", "controllers", "cost", "data", "evaluators", "importance", "training", "zoo")
    heavy = ("torch", "numpy", "scipy", "optuna", "ray", "sklearn", "pydantic")
    code = (
        f"import sys, importlib\nfor name in {modules}: importlib.import_module('autoprune.' + name)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
