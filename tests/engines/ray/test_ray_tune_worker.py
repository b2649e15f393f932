from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_search import PLAN
from fake_trainings import EPOCHS, epochs, plain, setup

from autoprune.engines.base import Scoring, WorkerSetup
from autoprune.evaluators import EVALUATORS
from autoprune.evaluators.base import Evaluator, Kind
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.making import kind_of, make_evaluator
from autoprune.space.groups import Widths
from autoprune.testing.evaluators import Bench, EvaluatorContract, Make, tiny_bench, tiny_density_bench
from autoprune.training.watch import Stopped, Watch
from autoprune.trials.assignment import Assignment

ray = pytest.importorskip("ray")

from autoprune.engines.ray.packing import pack_setup, unpack_setup  # noqa: E402
from autoprune.engines.ray.tune_states import States  # noqa: E402
from autoprune.engines.ray.tune_worker import Ending, Epoch, Evaluations, Stepwise  # noqa: E402

WIDTHS = PLAN[0][1]


def stepwise(folder: Path, job: Callable[[Watch], Any], *, key: str = "a", scores: bool = False) -> Stepwise:
    return Stepwise(job, States(str(folder / "states")), key, scores=scores)


def steps(work: Stepwise, n: int = 100) -> list[Epoch | Ending]:
    """What it says in so many steps, or until it ends."""
    said: list[Epoch | Ending] = []
    while len(said) < n and not (said and isinstance(said[-1], Ending)):
        work.go_on()
        news = work.news(timeout=20)
        assert news is not None
        said.append(news)
    return said


def training(folder: Path) -> Callable[[Watch], float]:
    place = setup(folder, plain)
    evaluations = Evaluations(place)
    return lambda watch: evaluations(Scoring(WIDTHS, 3), watch)


def test_work_halts_after_every_epoch_and_ends_with_its_result(tmp_path: Path) -> None:
    *reports, ending = steps(stepwise(tmp_path, training(tmp_path), scores=True))
    assert [report.share for report in reports if isinstance(report, Epoch)] == [20, 40, 60, 80]
    assert len({report.score for report in reports if isinstance(report, Epoch)}) == 4
    place = setup(tmp_path, plain)
    expected = float(place.evaluator(place.factory).evaluate(WIDTHS, seed=3))
    assert isinstance(ending, Ending)
    assert (float(ending.result), ending.error, ending.epochs, ending.unsaved) == (expected, None, EPOCHS, 0)


def test_work_that_was_stopped_goes_on_from_its_state_and_counts_its_seconds(tmp_path: Path) -> None:
    first = stepwise(tmp_path, training(tmp_path))
    report = steps(first, 3)[-1]
    assert isinstance(report, Epoch)
    first.stop()
    ending = steps(stepwise(tmp_path, training(tmp_path)))[-1]
    assert isinstance(ending, Ending)
    assert ending.epochs == EPOCHS - 3
    assert ending.seconds > report.seconds
    assert epochs(tmp_path) == {(WIDTHS, epoch): 1 for epoch in range(1, EPOCHS + 1)}
    assert ending.result == steps(stepwise(tmp_path / "elsewhere", training(tmp_path)))[-1].result  # type: ignore[union-attr]


def test_half_a_state_is_as_none(tmp_path: Path) -> None:
    first = stepwise(tmp_path, training(tmp_path))
    steps(first, 3)
    first.stop()
    file = tmp_path / "states" / "a.pt"
    file.write_bytes(file.read_bytes()[:-100])
    ending = steps(stepwise(tmp_path, training(tmp_path)))[-1]
    assert isinstance(ending, Ending)
    assert ending.epochs == EPOCHS


def _exit(watch: Watch) -> float:
    raise SystemExit(3)


def _swallow(watch: Watch) -> float:
    for _ in range(3):
        try:
            watch.epoch(1, 9, None, dict)
        except Stopped:
            continue
    return 1.0


def test_whatever_work_raises_is_told_with_its_traceback(tmp_path: Path) -> None:
    (ending,) = steps(stepwise(tmp_path, _exit))
    assert isinstance(ending, Ending)
    assert "SystemExit: 3" in str(ending.error)
    assert "_exit" in str(ending.error)


def test_stopping_gets_through_work_that_ignores_it(tmp_path: Path) -> None:
    work = stepwise(tmp_path, _swallow)
    steps(work, 1)
    work.stop()
    assert not [thread for thread in threading.enumerate() if "_run" in thread.name]


def test_work_that_is_never_begun_can_be_stopped(tmp_path: Path) -> None:
    stepwise(tmp_path, training(tmp_path)).stop()
    assert not epochs(tmp_path)


class Infinite(Evaluator):
    kind: Kind = "training"

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        return float("inf")


def test_a_score_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    place = setup(tmp_path, plain)
    evaluations = Evaluations(WorkerSetup(place.factory, lambda factory: Infinite(), "training", 1, tmp_path))
    assignment = Assignment(0, WIDTHS, "controller", 1, 0, {})
    (ending,) = steps(stepwise(tmp_path, lambda watch: evaluations(assignment, watch)))
    assert isinstance(ending, Ending)
    assert "not a finite number" in str(ending.error)


@ray.remote(num_cpus=0)
class Worker:
    """A process of the cluster that does what a worker of Ray Tune does, without Ray Tune."""

    def equip(self, packed: bytes) -> None:
        self._evaluations = Evaluations(unpack_setup(packed, "cpu"))

    def evaluate(self, piece: Assignment | Scoring, states: str) -> Ending:
        work = Stepwise(lambda watch: self._evaluations(piece, watch), States(states), "it", scores=True)
        ending = steps(work)[-1]
        assert isinstance(ending, Ending)
        States(states).delete("it")  # as the driver does
        return ending


class Remote(Evaluator):
    """An evaluator whose work is done by a worker of a cluster."""

    def __init__(
        self, worker: Any, factory: CandidateFactory, name: str, settings: dict[str, Any], states: Path
    ) -> None:
        self.kind: Kind = kind_of(name, settings)
        self._local = make_evaluator(name, factory, settings)
        self._place = WorkerSetup(
            factory, lambda factory: make_evaluator(name, factory, settings), self.kind, 1, states
        )
        self._worker, self._states = worker, str(states)
        ray.get(worker.equip.remote(pack_setup(self._place)))

    def prepare(self, directory: Path, *, seed: int) -> None:
        self._local.prepare(directory, seed=seed)

    def load(self, directory: Path) -> None:
        self._local.load(directory)
        ray.get(self._worker.equip.remote(pack_setup(replace(self._place, artefact=directory))))

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        if watch is not None:
            return float(self._local.evaluate(widths, seed=seed, full=full, watch=watch))
        piece = Scoring(widths, seed) if full else Assignment(0, widths, "controller", seed, 0, {})
        ending: Ending = ray.get(self._worker.evaluate.remote(piece, self._states))
        assert ending.error is None, ending.error
        score = float(ending.result)
        assert score == float(self._local.evaluate(widths, seed=seed, full=full))
        return score


@pytest.fixture(scope="module")
def worker() -> Iterator[Any]:
    here = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(here)  # workers do not find tests
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield Worker.remote()
    ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(here)


ALWAYS = ("inherited", "short_training", "supernet", "chain")
"""One of each kind: scored as cut, trained, trained beforehand, and made of others."""


class TestEveryEvaluatorInAWorker(EvaluatorContract):
    """The laws of evaluators hold in processes of a cluster, and scores are those of this process to the last bit."""

    @pytest.fixture(params=[pytest.param(n, marks=() if n in ALWAYS else pytest.mark.slow) for n in EVALUATORS.names()])
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def bench(self, name: str) -> Bench:
        return tiny_density_bench if name == "packnet" else tiny_bench

    @pytest.fixture
    def make(self, name: str, worker: Any, tmp_path: Path) -> Make:
        scratch = {"epochs": 2}
        quick: dict[str, dict[str, Any]] = {
            "inherited": {"calibration_batches": 4},
            "scratch": scratch,
            "short_training": {"steps": 8, "epochs": 2},
            "supernet": {"epochs": 2, "drawn": 1},
            "chain": {"steps": ["zero_cost", {"name": "scratch", "settings": scratch}]},
            "blend": {"parts": ["inherited", "zero_cost"]},
        }
        settings = quick.get(name, {})
        return lambda factory: Remote(worker, factory, name, settings, tmp_path)


def test_states_replace_each_other_and_go_when_they_are_not_needed(tmp_path: Path) -> None:
    states = States(str(tmp_path / "not yet" / "there"))
    assert states.read("a") is None
    states.delete("a")
    for value in (1.0, 2.0):
        states.write("a", {"weights": torch.full((3,), value), "epochs": [[1, value]]})
    kept = states.read("a")
    assert kept is not None
    assert kept["weights"].tolist() == [2.0] * 3
    assert kept["epochs"] == [[1, 2.0]]
    states.delete("a")
    assert states.read("a") is None
    assert not list((tmp_path / "not yet" / "there").iterdir())
