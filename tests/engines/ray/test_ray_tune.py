"""The lane of trainings on a real cluster of two nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_search import PLAN, ROOMY, gist, session
from fake_trainings import (
    EPOCHS,
    Behaviour,
    dies_once,
    epochs,
    loses_its_storage,
    misbehaves,
    perceptron,
    plain,
    setup,
    slow,
)

from autoprune.config.engine import EngineOptions
from autoprune.config.stopping import StoppingOptions
from autoprune.controllers.base import Trial, TrialState
from autoprune.engines.base import Failure, Scoring
from autoprune.engines.local import evaluate
from autoprune.errors import ConfigError, EvaluationError
from autoprune.trials.session import SearchSession

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster as Nodes  # noqa: E402

from autoprune.engines.ray.cluster import Cluster  # noqa: E402
from autoprune.engines.ray.packing import pack_setup  # noqa: E402
from autoprune.engines.ray.tune import TuneLane  # noqa: E402


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    made = Nodes(initialize_head=True, head_node_args={"num_cpus": 2})
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


class Lane:
    """A lane and the cluster's book of what happened."""

    def __init__(self, folder: Path, behaviour: Behaviour, **options: Any) -> None:
        stopping = {key: options.pop(key) for key in StoppingOptions.model_fields if key in options}
        self.cluster = Cluster(EngineOptions(name="ray", **{"workers": 1, **options}))
        self.cluster.stopping = StoppingOptions(**stopping)
        self.cluster.open()
        self.tune = TuneLane(self.cluster, ray.put(pack_setup(setup(folder, behaviour))), folder)

    @property
    def happened(self) -> dict[str, int]:
        return dict(self.cluster.happened)


def locally(search: SearchSession, folder: Path) -> SearchSession:
    folder.mkdir(exist_ok=True)
    place = setup(folder, plain)
    evaluator = place.evaluator(place.factory)
    while (assignment := search.ask()) is not None:
        search.tell(assignment, evaluate(evaluator, assignment.widths, seed=assignment.seed))
    return search


def one_of_each(n: int) -> list[tuple[str, tuple[int, ...]]]:
    """A plan with widths whose sum leaves each remainder by n once, in order."""
    found: dict[int, tuple[int, ...]] = {}
    for width in range(6, 6 + 4 * n):
        widths = ROOMY.space.nearest((width, 8, 8))
        found.setdefault(sum(widths) % n, widths)
    return [(f"remainder_{rest}", found[rest]) for rest in range(n)]


def clean(folder: Path) -> bool:
    """Whether nothing is left of what Tune and the states needed while they were used."""
    return not [path for path in folder.iterdir() if path.name.startswith(".tune")] and not list(
        (folder / "states").glob("*")
    )


@pytest.mark.parametrize("controller", ["surrogate"])
def test_one_worker_makes_the_same_trials_as_the_local_engine(nodes: Any, tmp_path: Path, controller: str) -> None:
    here = locally(session(tmp_path / "here", controller=controller, trials=4), tmp_path / "here")
    there = session(tmp_path / "there", controller=controller, trials=4)
    Lane(tmp_path, plain).tune.search(there)
    assert gist(there.trials) == gist(here.trials)
    assert clean(tmp_path)


def test_a_killed_worker_costs_one_epoch_and_changes_nothing(nodes: Any, tmp_path: Path) -> None:
    here = locally(session(tmp_path / "here", plan=one_of_each(3), trials=0), tmp_path / "here")
    there = session(tmp_path / "there", plan=one_of_each(3), trials=0)
    lane = Lane(tmp_path, dies_once)
    lane.tune.search(there)
    assert sorted(gist(there.trials)) == sorted(gist(here.trials))
    victim = there.trials[0]
    assert epochs(tmp_path) == {
        (trial.widths, epoch): 1 + (trial is victim and epoch == 3)
        for trial in there.trials
        for epoch in range(1, EPOCHS + 1)
    }
    assert lane.happened == {"lost_workers": 1, "retried": 1}
    assert clean(tmp_path)


@pytest.mark.slow
def test_candidates_that_raise_hang_leak_or_die_have_failed_and_the_others_go_on(nodes: Any, tmp_path: Path) -> None:
    search = session(tmp_path / "run", plan=one_of_each(5), trials=0)
    lane = Lane(tmp_path, misbehaves, time_limit=10, memory_limit="600MB", retries=0)
    lane.tune.search(search)
    *failed, fine = search.trials
    expected = (
        "ArithmeticError: no score",
        "stopped after the time_limit of 10 s",
        "above the memory_limit of 0.60 GB",
        "its worker was lost, the last of 1 attempts",
    )
    for trial, reason in zip(failed, expected, strict=True):
        assert trial.state is TrialState.FAILED
        assert reason in str(trial.error)
    assert "Traceback" in str(failed[0].error)
    assert fine.state is TrialState.COMPLETE
    assert lane.happened == {"timed_out": 1, "out_of_memory": 1, "lost_workers": 1}
    assert set(epochs(tmp_path).values()) == {1}


@pytest.mark.slow
def test_a_removed_node_costs_at_most_an_epoch_of_each_training(nodes: Any, tmp_path: Path) -> None:
    extra = nodes.add_node(num_cpus=2)
    search = session(tmp_path / "run", plan=[], trials=6)
    lane = Lane(tmp_path, slow, workers=2, cpus_per_worker=1.5)  # one for each node
    remover = threading.Thread(target=_remove_when_busy, args=(nodes, extra, lane, tmp_path))
    remover.start()
    lane.tune.search(search)
    remover.join()
    assert len(search.trials) == 6
    assert all(trial.state is TrialState.COMPLETE for trial in search.trials)
    assert lane.happened == {"lost_workers": 1, "retried": 1}
    assert sum(epochs(tmp_path).values()) <= 6 * EPOCHS + 1


def _remove_when_busy(nodes: Any, extra: Any, lane: Lane, folder: Path) -> None:
    while lane.tune.busy < 2 or sum(epochs(folder).values()) < 5:
        time.sleep(0.05)
    nodes.remove_node(extra, allow_graceful=False)


def test_asha_stops_some_early_but_no_baseline(nodes: Any, tmp_path: Path) -> None:
    search = session(tmp_path / "run", trials=12)
    lane = Lane(tmp_path, plain, early_stopping="asha")
    lane.tune.search(search)
    pruned = [trial for trial in search.trials if trial.state is TrialState.PRUNED]
    assert 3 <= len(pruned) < 12
    assert all(trial.score is not None and trial.origin == "controller" for trial in pruned)
    trained = epochs(tmp_path)
    assert all(not trained[trial.widths, EPOCHS] for trial in pruned)
    done = [max(epoch for widths, epoch in trained if widths == trial.widths) for trial in pruned]
    assert [trial.fidelity for trial in pruned] == pytest.approx([epoch / EPOCHS for epoch in done])
    assert all(trial.fidelity == 1 for trial in search.trials if trial.state is TrialState.COMPLETE)
    assert session(tmp_path / "run", trials=12).trials == search.trials
    lane.tune.close()
    assert not (tmp_path / "states").exists()
    assert clean(tmp_path)


def test_what_was_under_way_when_the_driver_gave_up_has_not_failed(nodes: Any, tmp_path: Path) -> None:
    def interrupt(trial: Trial) -> None:
        raise KeyboardInterrupt

    lane = Lane(tmp_path, slow, workers=2)
    with pytest.raises(KeyboardInterrupt):
        lane.tune.search(session(tmp_path / "run", trials=4, on_trial=interrupt))
    assert lane.tune.busy == 0
    assert lane.happened == {}
    resumed = session(tmp_path / "run", trials=4)
    assert [trial.state for trial in resumed.trials] == [TrialState.COMPLETE]
    locally(resumed, tmp_path)
    assert sorted(trial.number for trial in resumed.trials) == list(range(6))
    assert all(trial.state is TrialState.COMPLETE for trial in resumed.trials)


def _unbuildable(factory: object) -> Any:
    raise ArithmeticError("no evaluator of this factory")


def test_an_evaluator_that_cannot_be_built_ends_the_search_at_once(nodes: Any, tmp_path: Path) -> None:
    lane = Lane(tmp_path, plain)
    lane.tune = TuneLane(
        lane.cluster, ray.put(pack_setup(replace(setup(tmp_path, plain), evaluator=_unbuildable))), tmp_path
    )
    with pytest.raises(EvaluationError, match=r"^ArithmeticError: no evaluator.*; workers cannot build the eval"):
        lane.tune.search(session(tmp_path / "run", trials=4))
    assert session(tmp_path / "run", trials=4).trials == []


def test_a_storage_that_cannot_be_written_stops_no_training(nodes: Any, tmp_path: Path) -> None:
    search = session(tmp_path / "run", plan=PLAN, trials=0)
    lane = Lane(tmp_path, loses_its_storage)
    lane.tune.search(search)
    assert [trial.state for trial in search.trials] == [TrialState.COMPLETE] * 2
    assert lane.happened["unsaved_states"] >= EPOCHS
    with pytest.raises(ConfigError, match="cannot be written"):
        Lane(tmp_path, plain)


def _final(factory: object, piece: tuple[int, Path], watch: Any) -> dict[str, Any]:
    number, _ = piece
    if number == 1:
        raise EvaluationError("diverged")
    if number == 3:
        time.sleep(60)
    return {
        "number": number,
        "state": {"weights": torch.full((1000,), float(number))},
        "threads": torch.get_num_threads(),
    }


def test_trainings_end_with_whatever_they_return_or_a_failure(nodes: Any, tmp_path: Path) -> None:
    lane = Lane(tmp_path, plain, workers=2)
    ends = lane.tune.train(_final, [(3, tmp_path), *((i, tmp_path) for i in range(3))])
    results: dict[int, Any] = dict(next(ends) for _ in range(3))
    assert sorted(results) == [1, 2, 3]
    assert torch.equal(results[3]["state"]["weights"], torch.full((1000,), 2.0))
    assert results[1]["threads"] == 1
    assert isinstance(results[2], Failure)
    assert "EvaluationError: diverged" in results[2].error
    started = time.monotonic()
    ends.close()  # as Ctrl-C does, while the first one goes on for a minute
    assert time.monotonic() - started < 30
    assert lane.tune.busy == 0


def _patient(factory: object, piece: int, watch: Any) -> int:
    time.sleep(4)
    return piece


def test_final_trainings_know_no_time_limit(nodes: Any, tmp_path: Path) -> None:
    lane = Lane(tmp_path, plain, time_limit=1)
    assert list(lane.tune.train(_patient, [5])) == [(0, 5)]
    assert lane.happened == {}


def test_scores_outside_the_search_are_those_of_the_evaluator(nodes: Any, tmp_path: Path) -> None:
    pieces = [Scoring(widths, 5) for _, widths in PLAN]
    place = setup(tmp_path, plain)
    evaluator = place.evaluator(place.factory)
    expected = [float(evaluator.evaluate(piece.widths, seed=5, full=True)) for piece in pieces]
    found = dict(Lane(tmp_path, plain).tune.score(pieces))
    assert [found[i].score for i in range(2)] == expected


DRIVER = """
import sys
from pathlib import Path
from test_ray_tune import Lane, ray, session, slow
folder = Path(sys.argv[1])
lane = Lane(folder, slow)
lane.tune.search(session(folder / "run", trials=2))
"""


@pytest.mark.slow
def test_a_killed_driver_goes_on_from_the_states_of_its_trainings(nodes: Any, tmp_path: Path) -> None:
    ray_address = nodes.address
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RAY_ADDRESS": ray_address}
    code = DRIVER.replace("lane = ", f"ray.init({ray_address!r}, log_to_driver=False)\nlane = ")
    driver = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
    while sum(epochs(tmp_path).values()) < 8:
        assert driver.poll() is None
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(1)  # ray ends the workers of a lost driver
    search = session(tmp_path / "run", trials=2)
    ended = {trial.number for trial in search.trials}
    assert ended
    Lane(tmp_path, slow).tune.search(search)
    assert sorted(trial.number for trial in search.trials) == list(range(4))
    trained = epochs(tmp_path)
    whole = {trial.widths for trial in search.trials if trial.number in ended}
    assert all(count == 1 for (widths, _), count in trained.items() if widths in whole)
    assert sum(trained.values()) <= 4 * EPOCHS + 1
    expected = locally(session(tmp_path / "here", trials=2), tmp_path / "here").trials
    assert {t.number: t.score for t in search.trials} == {t.number: t.score for t in expected}


def test_networks_of_the_fakes_differ() -> None:
    assert perceptron((4, 1))[1].out_features == 4  # type: ignore[index, union-attr]
