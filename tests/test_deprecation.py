from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import autoprune
from autoprune.deprecation import MODULES, Deprecated, deprecated, moved

NAMES = {
    "autoprune.api:SearchResult": "autoprune.api.result:SearchResult",
    "autoprune.api:trace": "autoprune.api.space:trace",
    "autoprune.cli:main": "autoprune.cli.main:main",
    "autoprune.config:Job": "autoprune.config.job:Job",
    "autoprune.config:SpaceOptions": "autoprune.config.space:SpaceOptions",
    "autoprune.cost.budget:Budget": "autoprune.cost.budget.budget:Budget",
    "autoprune.evaluators.base:Workbench": "autoprune.evaluators.base:CandidateFactory",
}
OLD_PLUG_INS = """
from autoprune.controllers.base import Controller, Trial, TrialState
from autoprune.controllers.history import History
from autoprune.controllers.proposals import mutate
from autoprune.cost.polynomial import Polynomial
from autoprune.cost.repair import BudgetedSpace
from autoprune.evaluators.base import Evaluator, Workbench
from autoprune.importance.members import rank_channels
from autoprune.space.calls import Call, LabelGraph
from autoprune.space.rules.base import fed
from autoprune.space.trace import trace
from autoprune.config import SpaceOptions
from autoprune.training.loop import Recipe
from autoprune.training.protocols import Protocol
from autoprune.training.task import ClassificationTask, Task
from autoprune.testing.controllers import ControllerContract
import autoprune.training.callable_task as tasks
assert tasks.CallableTask and callable(autoprune.search)
"""


def named(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.fixture(params=MODULES)
def old(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delitem(sys.modules, request.param, raising=False)
    return str(request.param)


def test_an_old_module_gives_the_names_of_the_new_one(old: str) -> None:
    with pytest.warns(Deprecated, match=f"^{old} is now {MODULES[old][0]}.*the old name goes on 2027-05-30$") as caught:
        module = importlib.import_module(old)
    assert len(caught) == 1
    for home in map(importlib.import_module, MODULES[old]):
        for name, value in vars(home).items():
            if getattr(value, "__module__", None) == home.__name__:
                assert getattr(module, name) is value
    with pytest.raises(AttributeError, match="has no 'no_such'"):
        _ = module.no_such


def test_no_module_of_today_is_called_like_an_old_one() -> None:
    root = Path(autoprune.__file__).parent
    for name in MODULES:
        place = root.joinpath(*name.split(".")[1:])
        assert not place.is_dir()
        assert not place.with_suffix(".py").exists()


@pytest.mark.parametrize("path", NAMES)
def test_a_name_that_left_its_module_is_found_and_says_where_it_is(path: str) -> None:
    told = (
        f"{path.replace(':', '.')} is now {NAMES[path].replace(':', '.')}; change your code, the old name goes on 2027"
    )
    with pytest.warns(Deprecated, match=told):
        found = named(path)
    assert found is named(NAMES[path])


def test_plug_ins_written_for_the_old_layout_are_imported_and_warned_where_they_are(tmp_path: Any) -> None:
    plug_in = tmp_path / "old_plug_in.py"
    plug_in.write_text("import autoprune\n" + OLD_PLUG_INS)
    code = (
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    import old_plug_in\n"
        "from autoprune.deprecation import Deprecated\n"
        "for one in caught:\n"
        "    if one.category is Deprecated: print(one.filename, str(one.message).split()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {file for file, _ in lines} == {str(plug_in)}
    assert [name.removeprefix("autoprune.") for _, name in lines] == [
        "controllers.history",
        "controllers.proposals",
        "cost.repair",
        "evaluators.base.Workbench",
        "space.calls",
        "space.rules",
        "space.rules.base",
        "space.trace",
        "config.SpaceOptions",
        "training.task",
        "training.callable_task",
    ]


def test_the_package_called_search_is_gone_with_a_reason() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"autoprune.search is a function; .* in autoprune.trials"):
        importlib.import_module("autoprune.search.session")


def test_other_names_are_missed_as_ever() -> None:
    for name in ("autoprune.no_such", "autoprune.training.no_such", "autoprune.training.task.no_such"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Deprecated)
            with pytest.raises(ModuleNotFoundError):
                importlib.import_module(name)
    with pytest.raises(AttributeError, match=r"module 'autoprune.config' has no attribute 'Jobs'"):
        named("autoprune.config:Jobs")


@deprecated(since="2026-12-01", use="somewhere.new")
def doubled(number: int) -> int:
    """Twice the number."""
    return 2 * number


@deprecated(since="2026-12-01", use="somewhere.New")
class Old:
    def __init__(self, number: int) -> None:
        self.number = number


class OwnChild(Old):
    pass


def test_a_deprecated_function_works_and_warns_the_caller() -> None:
    with pytest.warns(
        Deprecated, match="test_deprecation.doubled is now somewhere.new; .* goes on 2027-06-01"
    ) as caught:
        assert doubled(4) == 8
    assert caught[0].filename == __file__
    assert doubled.__doc__ == "Twice the number."


def test_a_deprecated_class_stays_a_class() -> None:
    with pytest.warns(Deprecated, match="test_deprecation.Old is now somewhere.New") as caught:
        assert Old(3).number == 3
    assert caught[0].filename == __file__
    assert isinstance(Old, type)
    with pytest.warns(Deprecated, match="Old is now"):
        assert isinstance(OwnChild(3), Old)


def test_asking_for_a_name_that_moved_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("old_home")
    module.__path__ = []  # a package, which the import statement asks twice
    module.__getattr__ = moved("old_home", {"Trial": "autoprune.controllers.base"}, since="2026-11-29")
    monkeypatch.setitem(sys.modules, "old_home", module)
    with pytest.warns(Deprecated) as caught:
        exec("from old_home import Trial", {})
    assert [str(one.message).split(";")[0] for one in caught] == [
        "old_home.Trial is now autoprune.controllers.base.Trial"
    ]
