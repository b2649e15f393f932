"""A short form of the campaign: damage of files and journals, in this process; kills are in `test_kill_resume.py`."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import faults
import pytest
from fault_campaign import damage
from fault_campaign.cases import Case, Ended, command, judged
from fault_campaign.network import write_job

from autoprune.trials import snapshots


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("campaign")
    job = write_job(folder / "job.yaml", search={"trials": 3, "controller": "random", "rescore": 1})
    ended = command("search", str(job), "--run-dir", str(folder / "run"), "--progress", "silent")
    assert ended.code == 0, ended.printed
    return folder / "run"


@pytest.fixture
def found(request: pytest.FixtureRequest, finished: Path, tmp_path: Path) -> list[Case]:
    kind, n = request.param
    cases: Iterator[Case] = faults.campaign(kind, finished, tmp_path, seed=1, numbers=range(n))
    return list(cases)


@pytest.mark.parametrize("found", [("files", 6), ("journals", 6)], indirect=True)
def test_after_damage_nothing_is_lost_wrong_or_a_traceback(found: list[Case]) -> None:
    bad = [case for case in found if case.outcome in faults.BAD]
    assert bad == []
    assert len(found) == 6
    assert sum(case.outcome == "survived" for case in found) >= len(found) / 2


def test_the_campaign_sees_what_is_wrong(finished: Path) -> None:
    reference = faults.results(finished)
    other = {**reference, "unit": "nats"}
    trace = Ended(-1, "Traceback …")
    cases = [
        judged("k", "n", finished, reference, [Ended(0, "")]),
        judged("k", "n", finished, other, [Ended(0, "")]),
        judged("k", "n", finished, reference, [Ended(2, "error: it is damaged")]),
        judged("k", "n", finished, reference, [Ended(0, ""), Ended(2, "error: restore it")]),
        judged("k", "n", finished, reference, [Ended(0, ""), trace]),
        judged("k", "n", finished, reference, [Ended(2, "error: " + "long " * 500)]),
    ]
    outcomes = [case.outcome for case in cases]
    assert outcomes == ["survived", "wrong", "lost", "clear error", "traceback", "traceback"]
    text = faults.page(cases)
    assert "| k | 6 | 1 | 1 | 1 | 1 | 2 | 0 |" in text
    assert "k 0, n: wrong: differs: unit" in text


def test_figures_whose_cases_are_gone_stay_under_their_date() -> None:
    first = faults.page([Case("damaged file", "f", "survived"), Case("damaged file", "g", "lost", "it is gone")])
    assert faults.earlier(first, known=True) == ""
    assert faults.earlier("", known=False) == ""
    second = faults.page([Case("lost node", "n", "survived")]) + faults.earlier(first, known=False)
    assert (
        second.index("| lost node | 1 | 1 |") < second.index(faults.EARLIER) < second.index("| damaged file | 2 | 1 |")
    )
    assert "damaged file 0, g: lost: it is gone" in second
    third = faults.page([Case("lost node", "n", "survived")] * 2) + faults.earlier(second, known=True)
    assert third.partition(faults.EARLIER)[2] == second.partition(faults.EARLIER)[2]
    fourth = faults.page([]) + faults.earlier(second, known=False)
    assert fourth.count(faults.EARLIER) == 1
    assert fourth.index("| lost node | 1 | 1 |") < fourth.index("| damaged file | 2 | 1 |")


@pytest.mark.parametrize("change", [*damage.SNAPSHOTS])
def test_a_snapshot_is_damaged_as_is_said(change: str) -> None:
    content = {"by": ["a", "1", "2"], "asked": 3, "told": 2, "ledger": "0" * 64, "state": {"rng": {}, "pool": [1]}}
    whole = snapshots._sealed(json.dumps(content))
    found = damage.SNAPSHOTS[change](whole, random.Random(0))
    assert found != whole
    seal, _, text = (found or b"").partition(b"\n")
    assert (hashlib.sha256(text).hexdigest().encode() == seal) == (change not in damage.CHANGES)
