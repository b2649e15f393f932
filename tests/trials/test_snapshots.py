"""A search that goes on from a snapshot of its controller is the search that it was, and nothing else is believed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_search import ROOMY, gist, noisy

from autoprune.controllers import make_controller
from autoprune.controllers.base import Controller, Trial, TrialState
from autoprune.controllers.surrogate import Surrogate
from autoprune.trials import snapshots
from autoprune.trials.assignment import Assignment, Outcome
from autoprune.trials.ledger import Ledger, open_storage
from autoprune.trials.session import SearchSession
from autoprune.trials.snapshots import SNAPSHOT, Snapshots

PLAN = (("uniform_all", ROOMY.uniform()),)


def session(folder: Path, controller: Controller, *, every: int = 10) -> SearchSession:
    folder.mkdir(exist_ok=True)
    return SearchSession(
        ROOMY,
        controller,
        Ledger(open_storage(None, folder / "journal.log"), "search", ROOMY.space),
        plan=PLAN,
        trials=60,
        seed=7,
        snapshots=Snapshots(folder / SNAPSHOT, every=every),
    )


def fresh(name: str = "surrogate") -> Controller:
    return make_controller(name, ROOMY, seed=3, settings={}, trials=60)


def drive(search: SearchSession, ends: int, *, at_once: int = 3) -> None:
    """Until so many trials have ended, several at once; every seventh fails, every eleventh was stopped early."""
    out: list[Assignment] = []
    while len(search.trials) < ends and (search.proposed < search.total or out):
        while len(out) < at_once and (found := search.ask()) is not None:
            out.append(found)
        one = out.pop(0)
        if one.number % 7 == 5:
            search.tell(one, Outcome(None, "it broke"))
        elif one.number % 11 == 10:
            search.tell(one, Outcome(noisy(one.widths, one.seed), pruned=True, fidelity=0.5))
        else:
            search.tell(one, Outcome.of(noisy(one.widths, one.seed)))


@pytest.mark.parametrize("stopped", [30, 33, 39, 40])
def test_a_search_that_goes_on_from_a_snapshot_is_the_same(
    stopped: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive(session(tmp_path / "run", fresh()), stopped)
    told = []
    maximisers = Surrogate._maximisers
    monkeypatch.setattr(Surrogate, "_maximisers", lambda self, n: told.append(n) or maximisers(self, n))
    resumed = session(tmp_path / "run", fresh())
    from_snapshot = sum(told)
    (tmp_path / "run" / SNAPSHOT).unlink()
    replayed = session(tmp_path / "run", fresh())
    assert from_snapshot < sum(told) - from_snapshot, "the snapshot spares proposals"
    assert gist(resumed.trials) == gist(replayed.trials)
    assert (resumed.best, resumed.uniform, resumed.proposed) == (replayed.best, replayed.uniform, replayed.proposed)
    assert list(resumed._waiting) == list(replayed._waiting), "with the incumbents of their day"
    assert all(one.incumbents for one in resumed._waiting)
    for _ in range(12):
        assert resumed._controller.ask(1) == replayed._controller.ask(1)


def cut(text: str) -> str:
    return text[: len(text) // 2]


def other_rng(text: str) -> str:
    return text.replace('"fitted": [', '"fitted": [1')


def of_another_version(text: str) -> str:
    content = json.loads(text.partition("\n")[2])
    content["by"][1] = "0.0.1"
    return snapshots._sealed(json.dumps(content)).decode()


def of_another_search(text: str) -> str:
    content = json.loads(text.partition("\n")[2])
    content["ledger"] = "0" * 64
    return snapshots._sealed(json.dumps(content)).decode()


def of_other_settings(text: str) -> str:
    content = json.loads(text.partition("\n")[2])
    content["state"]["startup"] += 1
    return snapshots._sealed(json.dumps(content)).decode()


@pytest.mark.parametrize(
    "damage",
    [cut, other_rng, of_another_version, of_another_search, of_other_settings, lambda _: "", lambda _: "\0" * 99],
)
def test_a_snapshot_that_is_damaged_or_of_something_else_is_not_believed(
    damage: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = session(tmp_path / "run", fresh())
    drive(whole, 33)
    file = tmp_path / "run" / SNAPSHOT
    file.write_text(damage(file.read_text()))
    asked = []
    maximisers = Surrogate._maximisers
    monkeypatch.setattr(Surrogate, "_maximisers", lambda self, n: asked.append(n) or maximisers(self, n))
    resumed = session(tmp_path / "run", fresh())
    assert gist(resumed.trials) == gist(whole.trials)
    assert sum(asked) >= 20, "all was proposed again"


NONSENSE: tuple[object, ...] = (
    None, -1, 10**40, 1e300, "text", [], [[]], [None] * 8, [[3] * 99], [float("nan")] * 8, {}, {"state": {}},
)  # fmt: skip


def test_a_whole_snapshot_that_holds_nonsense_is_not_believed_and_changes_nothing(tmp_path: Path) -> None:
    whole, made = session(tmp_path / "run", fresh()), fresh()
    drive(whole, 13)
    file = tmp_path / "run" / SNAPSHOT
    content = json.loads(file.read_text().partition("\n")[2])
    for key in (*content["state"], None):
        for value in NONSENSE:
            state = value if key is None else {**content["state"], key: value}
            if key not in ("queue", "pool") or value not in ([], [[]]):  # an empty one is as good as any
                assert not made.restore(state, [], whole.trials[:10]), (key, value)
    assert made.ask(12) == fresh().ask(12), "it is as it was made"
    for wrong in (None, [], [content], {"state": {}}, {**content, "asked": "many"}, {**content, "state": 3}):
        file.write_bytes(snapshots._sealed(json.dumps(wrong)))
        assert gist(session(tmp_path / "run", fresh()).trials) == gist(whole.trials)
    del content["state"]
    file.write_bytes(snapshots._sealed(json.dumps(content)))
    assert gist(session(tmp_path / "run", fresh()).trials) == gist(whole.trials)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "not UTF-8"])
def test_what_is_no_file_of_text_is_no_snapshot(kind: str, tmp_path: Path) -> None:
    drive(session(tmp_path / "run", fresh()), 11)
    file = tmp_path / "run" / SNAPSHOT
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "folder":
        file.mkdir()
    else:
        file.write_bytes(b"\xff\xfe\n{}")
    assert len(session(tmp_path / "run", fresh()).trials) == 11


def test_a_snapshot_that_cannot_be_written_stops_no_search(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / SNAPSHOT).mkdir()
    drive(session(tmp_path / "run", fresh()), 20)
    assert len(session(tmp_path / "run", fresh()).trials) == 20


@pytest.mark.parametrize("name", ["surrogate", "evolution", "cmaes"])
def test_controllers_that_have_snapshots_and_others_go_on_the_same(name: str, tmp_path: Path) -> None:
    drive(session(tmp_path / "run", fresh(name)), 23, at_once=1)
    first = session(tmp_path / "run", fresh(name))
    (tmp_path / "run" / SNAPSHOT).unlink(missing_ok=True)
    second = session(tmp_path / "run", fresh(name))
    assert first._controller.ask(3) == second._controller.ask(3)


def test_short_searches_write_none(tmp_path: Path) -> None:
    drive(session(tmp_path / "run", fresh(), every=snapshots.EVERY), 52)
    assert not (tmp_path / "run" / SNAPSHOT).exists()


def test_what_was_scored_on_the_way_is_part_of_what_a_snapshot_belongs_to() -> None:
    trial = Trial(0, ROOMY.uniform(), TrialState.COMPLETE, 1.0, partial=((0.5, 0.2),))
    assert snapshots._digest([], [trial]) == snapshots._digest([], [replace(trial, seconds=2.0)])
    assert snapshots._digest([], [trial]) != snapshots._digest([], [replace(trial, partial=((0.5, 0.3),))])
