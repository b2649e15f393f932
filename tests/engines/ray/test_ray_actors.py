"""The lane of short evaluations on a real cluster of two nodes."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_search import PLAN, ROOMY, gist, session
from fake_work import (
    Behaviour,
    Following,
    calls,
    dies_always,
    dies_once,
    hangs,
    misbehaves,
    plain,
    refuses_to_be_built,
    setup,
    slow,
)

from autoprune.config.engine import EngineOptions
from autoprune.config.stopping import StoppingOptions
from autoprune.controllers.base import TrialState
from autoprune.engines.base import Scoring
from autoprune.engines.local import LocalEngine
from autoprune.errors import ConfigError, EvaluationError, RunError
from autoprune.trials.session import SearchSession

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster as Nodes  # noqa: E402

from autoprune.engines.ray import actors as ray_actors  # noqa: E402
from autoprune.engines.ray.actors import ActorLane  # noqa: E402
from autoprune.engines.ray.cluster import Cluster  # noqa: E402
from autoprune.engines.ray.packing import pack_setup  # noqa: E402


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    made = Nodes(initialize_head=True, head_node_args={"num_cpus": 4})
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


class Lane:
    """A lane, the cluster's book of what happened, and what was told."""

    def __init__(self, folder: Path, behaviour: Behaviour, **options: Any) -> None:
        stopping = {key: options.pop(key) for key in StoppingOptions.model_fields if key in options}
        self.cluster = Cluster(EngineOptions(name="ray", **{"workers": 1, "wait_for_workers": 60.0, **options}))
        self.cluster.stopping = StoppingOptions(**stopping)
        self.cluster.open()
        self.told: list[str] = []
        self.cluster.note = self.told.append
        packed = ray.put(pack_setup(setup(folder, behaviour)))
        self.actors = ActorLane(self.cluster, packed, folder)

    def search(self, search: SearchSession) -> dict[str, int]:
        """Search, dismiss the workers, and return what happened to them."""
        self.actors.search(search)
        assert self.actors.busy == 0
        self.actors.close()
        return dict(self.cluster.happened)


def locally(folder: Path, trials: int) -> SearchSession:
    search, engine = session(folder, trials=trials), LocalEngine()
    engine.equip(setup(folder, plain))
    engine.search(search)
    return search


def whole(search: SearchSession) -> bool:
    """Whether every number is there once."""
    return sorted(trial.number for trial in search.trials) == list(range(search.total))


def test_there_are_as_many_workers_as_the_nodes_hold(nodes: Any) -> None:
    def workers(**options: Any) -> int:
        cluster = Cluster(EngineOptions(name="ray", **options))
        cluster.open()
        cluster.close()
        return cluster.workers

    assert workers() == 4
    assert workers(cpus_per_worker=1.5) == 2
    assert workers(cpus_per_worker=0.1) == 40
    assert workers(cpus_per_worker=64, workers=2) == 2, "an autoscaler may bring their nodes"
    with pytest.raises(
        ConfigError, match=r"a worker needs CPU 1, moon 2, but no node of the cluster has that \(they have"
    ):
        workers(resources={"moon": 2})
    with pytest.raises(ConfigError, match="workers that take no resources need a number: set workers"):
        workers(cpus_per_worker=0)


def test_workers_have_names_that_say_run_and_role(nodes: Any, tmp_path: Path) -> None:
    lane = Lane(tmp_path / "my run", plain, workers=2)
    names = sorted(ray.util.list_named_actors())
    assert [name.rpartition(" (")[0] for name in names] == [
        "autoprune my run evaluation 0",
        "autoprune my run evaluation 1",
    ]
    lane.actors.close()


def test_one_worker_makes_the_trials_of_the_local_engine_even_if_it_is_killed(nodes: Any, tmp_path: Path) -> None:
    here, there = locally(tmp_path / "here", 8), session(tmp_path / "there", trials=8)
    happened = Lane(tmp_path, dies_once).search(there)
    assert gist(there.trials) == gist(here.trials)
    victims = [trial.widths for trial in there.trials if sum(trial.widths) % 3 == 0]
    assert victims
    assert happened == {"lost_workers": len(victims), "retried": len(victims)}
    assert set(Counter(calls(tmp_path)).values()) == {1, 2}
    assert len(calls(tmp_path)) == there.total + len(victims), "nothing that had ended was evaluated again"


def test_workers_are_told_of_the_best_candidates_so_far(nodes: Any, tmp_path: Path) -> None:
    place = dataclasses.replace(setup(tmp_path, plain), evaluator=Following)
    here, there = (session(tmp_path / name, trials=8) for name in ("here", "there"))
    engine = LocalEngine()
    engine.equip(place)
    engine.search(here)
    cluster = Cluster(EngineOptions(name="ray", workers=1))
    cluster.open()
    lane = ActorLane(cluster, ray.put(pack_setup(place)), tmp_path)
    lane.search(there)
    lane.close()
    assert gist(there.trials) == gist(here.trials)


def test_what_candidates_do_wrong_is_told_and_ends_nothing(nodes: Any, tmp_path: Path) -> None:
    search = session(tmp_path / "run", trials=7)
    lane = Lane(tmp_path, misbehaves, workers=2, memory_limit="900MB", time_limit=90)
    happened = lane.search(search)
    assert whole(search)
    errors = {sum(t.widths): (t.error or "").strip().rpartition("\n")[2] for t in search.trials}
    assert errors.pop(46).endswith("GB, above the memory_limit of 0.90 GB")
    assert errors.pop(47) == "ArithmeticError: no score"
    assert errors.pop(58) == "autoprune.errors.EvaluationError: the score is nan, not a finite number"
    assert set(errors.values()) == {""}
    assert max(Counter(calls(tmp_path)).values()) == 1, "what fails by itself is not tried again"
    assert happened == {"out_of_memory": 1}
    assert len(lane.told) == 1


def test_many_workers_are_sent_proposals_made_in_advance(
    nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ahead(folder: Path) -> int:
        search = session(folder / "run", trials=12)
        assert Lane(folder, slow, workers=2).search(search) == {}
        assert whole(search)
        assert set(Counter(calls(folder)).values()) == {1}
        return max(trial.number - trial.told for trial in search.trials)

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert ahead(tmp_path / "a") == 1, "two workers: one other candidate is being evaluated"
    monkeypatch.setattr(ray_actors, "_WORKERS_PER_RESERVE", 1)
    assert 2 <= ahead(tmp_path / "b") <= 3, "and two are in reserve"


def test_what_hangs_is_stopped_at_the_time_limit(nodes: Any, tmp_path: Path) -> None:
    search = session(tmp_path / "run", trials=7)
    assert Lane(tmp_path, hangs, workers=2, time_limit=4).search(search) == {"timed_out": 1}
    assert whole(search)
    errors = {sum(t.widths): t.error for t in search.trials}
    assert errors.pop(49) == "stopped after the time_limit of 4 s"
    assert set(errors.values()) == {None}
    assert max(Counter(calls(tmp_path)).values()) == 1, "what hangs is not tried again"


def test_a_candidate_that_always_kills_its_worker_has_failed_in_the_end(nodes: Any, tmp_path: Path) -> None:
    search = session(tmp_path / "run", trials=6)
    happened = Lane(tmp_path, dies_always, workers=2, retries=1).search(search)
    assert whole(search)
    failed = [trial for trial in search.trials if trial.state is TrialState.FAILED]
    assert {t.widths for t in failed} == {t.widths for t in search.trials if sum(t.widths) % 3 == 0}
    assert failed
    assert all(str(t.error).endswith("the last of 2 attempts at this candidate") for t in failed)
    assert happened == {"lost_workers": 2 * len(failed), "retried": len(failed)}


def test_a_node_that_goes_takes_its_workers_but_no_trial(nodes: Any, tmp_path: Path) -> None:
    large = nodes.add_node(num_cpus=2, resources={"spot": 2})
    nodes.add_node(num_cpus=1, resources={"spot": 1})
    nodes.wait_for_nodes()
    search = session(tmp_path / "run", trials=10)
    lane = Lane(tmp_path, slow, workers=2, resources={"spot": 1})

    def strike() -> None:
        while len(calls(tmp_path)) < 4:
            time.sleep(0.02)
        nodes.remove_node(large)

    threading.Thread(target=strike).start()
    happened = lane.search(search)
    assert whole(search)
    assert all(trial.state is TrialState.COMPLETE for trial in search.trials)
    assert 1 <= happened["lost_workers"] <= 2
    assert 0 <= happened.get("retried", 0) <= happened["lost_workers"]
    assert len(calls(tmp_path)) <= search.total + happened.get("retried", 0), "nothing that had ended was done again"


def test_where_no_worker_ever_comes_the_run_ends_with_what_to_do(nodes: Any, tmp_path: Path) -> None:
    lane = Lane(tmp_path, plain, wait_for_workers=4, resources={"moon": 1})
    expected = (
        r"no room for a worker for .* needs CPU 1, moon 1; free on . nodes?: CPU .* of .*, moon 0 of 0 \(no node has "
        r"so much\)\. .* add nodes or ask for less per worker, then resume"
    )
    with pytest.raises(RunError, match=expected):
        lane.search(session(tmp_path / "run"))
    lane.actors.close()
    assert any("waiting for a worker" in line and "moon 0 of 0" in line for line in lane.told)


def test_an_evaluator_that_cannot_be_built_ends_the_run(nodes: Any, tmp_path: Path) -> None:
    cluster = Cluster(EngineOptions(name="ray", workers=1))
    cluster.open()
    place = dataclasses.replace(setup(tmp_path, plain), evaluator=refuses_to_be_built)
    lane = ActorLane(cluster, ray.put(pack_setup(place)), tmp_path)
    with pytest.raises(EvaluationError, match=r"no such calibration file.*; workers cannot build the evaluator"):
        lane.search(session(tmp_path / "run"))
    lane.close()


def test_scores_on_all_data_come_as_they_end_and_a_caller_may_stop_listening(nodes: Any, tmp_path: Path) -> None:
    lane = Lane(tmp_path, slow, workers=2)
    pieces = [Scoring(widths, 1) for _, widths in (*PLAN, ("full", ROOMY.space.full))]
    told = dict(lane.actors.score(pieces))
    assert {i: outcome.score for i, outcome in told.items()} == {
        i: sum(width**0.5 for width in piece.widths) for i, piece in enumerate(pieces)
    }
    assert all(name.endswith("-full") for name in calls(tmp_path))
    few = lane.actors.score(pieces)
    next(few)
    few.close()
    assert lane.actors.busy == 0
    lane.actors.close()


_DRIVER = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from fake_search import session
from fake_work import slow, setup
from autoprune.config.engine import EngineOptions
from autoprune.config.stopping import StoppingOptions
from autoprune.engines import make_engine
folder = Path({folder!r})
with make_engine(EngineOptions(name="ray", address={address!r}, workers=2)) as engine:
    engine.equip(setup(folder, slow))
    engine.search(session(folder / "run"))
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_driver_that_ends_goes_on_where_it_was(nodes: Any, tmp_path: Path, end: signal.Signals) -> None:
    here = Path(__file__).parents[2] / "helpers"
    script = _DRIVER.format(paths=[str(here)], folder=str(tmp_path), address=nodes.address)
    driver = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    while len(calls(tmp_path)) < 5:
        time.sleep(0.02)
        assert driver.poll() is None
    os.kill(driver.pid, end)
    driver.wait()
    kept, before = session(tmp_path / "run").trials, calls(tmp_path)
    search = session(tmp_path / "run")
    Lane(tmp_path, plain, workers=2).search(search)
    assert whole(search)
    assert 0 < len(kept) < search.total
    assert gist(search.trials[: len(kept)]) == gist(kept), "what had ended is as it was"
    again = {tuple(map(int, name.split("-"))) for name in calls(tmp_path)[len(before) :]}
    assert not {trial.widths for trial in kept} & again, "nothing that had ended was done again"
