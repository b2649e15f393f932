from __future__ import annotations

import copy
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import same_weights
from torch import nn

from autoprune.engines.base import Scoring, WorkerSetup
from autoprune.engines.local import evaluate
from autoprune.errors import ConfigError, EvaluationError, RegistryError, RunError
from autoprune.evaluators import EVALUATORS
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.making import check_evaluator, make_evaluator
from autoprune.registry import Part
from autoprune.space.cutting.graph_form import graph_network
from autoprune.space.groups import Widths
from autoprune.space.tracing.trace import trace
from autoprune.testing.evaluators import Bench, EvaluatorContract, Make, tiny_bench, tiny_density_bench
from autoprune.training.watch import Watch

QUICK: dict[str, dict[str, Any]] = {
    "inherited": {"calibration_batches": 4},
    "scratch": {"epochs": 2},
    "chain": {"steps": ["zero_cost", {"name": "scratch", "settings": {"epochs": 2}}]},
    "blend": {"parts": ["inherited", "zero_cost"]},
}


class TestEveryEvaluator(EvaluatorContract):
    @pytest.fixture(params=EVALUATORS.names())
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def make(self, name: str) -> Make:
        return lambda factory: make_evaluator(name, factory, QUICK.get(name, {}))

    @pytest.fixture
    def bench(self, name: str) -> Bench:
        return tiny_density_bench if name == "packnet" else tiny_bench


@pytest.fixture(scope="module")
def factory() -> CandidateFactory:
    return tiny_bench()


def test_inherited_weights_of_the_whole_network_score_as_the_base_network(factory: CandidateFactory) -> None:
    evaluator = make_evaluator("inherited", factory, {"calibration_batches": 0})
    assert float(evaluator.evaluate(factory.space.full, seed=0)) == factory.task.score(factory.model)


def test_recalibrated_statistics_are_those_of_the_cut_network(factory: CandidateFactory) -> None:
    """With statistics that fit nothing, only recalibration gives the network its accuracy back."""
    spoilt = copy.deepcopy(factory.model)
    for module in spoilt.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.fill_(50.0)
    other = CandidateFactory(spoilt, factory.space, factory.ranking, factory.task, factory.base_epochs)
    without, with_, unspoilt = (
        float(make_evaluator("inherited", b, {"calibration_batches": n}).evaluate(factory.space.full, seed=0))
        for b, n in ((other, 0), (other, 8), (factory, 8))
    )
    assert with_ == unspoilt
    assert with_ > without + 20


@pytest.mark.parametrize("name", ["chain", "inherited", "scratch"])
def test_a_network_that_runs_as_its_graph_scores_like_the_module(factory: CandidateFactory, name: str) -> None:
    """To the last bit, trained or not: batch norm, dropout and initialisation are those of the user's own modules."""
    traced = trace(factory.model, torch.zeros(1, 1, 6, 6))
    space = replace(traced.space, form="graph")
    network = graph_network(factory.model, traced.program, space, traced.example)
    graph = CandidateFactory(network, space, factory.ranking, factory.task, factory.base_epochs)
    for widths in (space.full, space.uniform(0.5)):
        scores = [make_evaluator(name, b, QUICK[name]).evaluate(widths, seed=2) for b in (factory, graph)]
        assert scores[0] == scores[1]
        cuts = [b.candidate(widths) for b in (factory, graph)]
        if name == "scratch":
            for cut in cuts:
                factory.task.train(cut, epochs=1, seed=3)
        assert same_weights(cuts[0], cuts[1])


def test_scratch_looks_at_no_inherited_weight_and_follows_its_seed(factory: CandidateFactory) -> None:
    spoilt = copy.deepcopy(factory.model)
    with torch.no_grad():
        for parameter in spoilt.parameters():
            parameter.zero_()
    other = CandidateFactory(spoilt, factory.space, factory.ranking, factory.task, factory.base_epochs)
    widths = factory.space.uniform(0.5)
    scores = [make_evaluator("scratch", b, {"epochs": 1}).evaluate(widths, seed=3) for b in (factory, other)]
    assert scores[0] == scores[1]
    evaluator = make_evaluator("scratch", factory, {"epochs": 1})
    assert len({evaluator.evaluate(widths, seed=seed) for seed in range(5)}) > 1


@pytest.mark.parametrize("name", ["inherited", "scratch"])
def test_a_limit_scores_a_part_except_where_all_is_asked_for(factory: CandidateFactory, name: str) -> None:
    part = make_evaluator(name, factory, {**QUICK[name], "validation_limit": 7})
    whole = make_evaluator(name, factory, QUICK[name])
    widths = factory.space.smallest
    of_seven, of_all = (float(evaluator.evaluate(widths, seed=0)) for evaluator in (part, whole))
    assert of_seven * 7 / 100 == pytest.approx(round(of_seven * 7 / 100))
    assert of_seven != of_all
    fully = [float(evaluator.evaluate(widths, seed=0, full=True)) for evaluator in (part, whole)]
    assert fully[0] == fully[1]
    assert fully[0] * 64 / 100 == pytest.approx(round(fully[0] * 64 / 100))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("inherited", {"calibration_batches": -1}, "calibration_batches must be at least 0"),
        ("inherited", {"validation_limit": 0}, "validation_limit must be at least 1"),
        ("inherited", {"epochs": 1}, "has no setting 'epochs'; its settings are calibration_batches, validation_limit"),
        ("inherited", {"calibration_batch": 1}, "Did you mean 'calibration_batches'"),
        ("inherited", {"factory": None}, "has no setting 'factory'"),
        ("inherited", {"calibration_batches": "many"}, "calibration_batches must be"),
        ("scratch", {"epochs": 0}, "epochs must be at least 1"),
        ("scratch", {"epochs": 1.5}, "epochs must be"),
        ("scratch", {"validation_limit": -3}, "validation_limit must be at least 1"),
    ],
)
def test_bad_settings_are_refused(factory: CandidateFactory, name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"evaluator '{name}'.*{message}"):
        make_evaluator(name, factory, settings)


def test_an_unknown_evaluator_is_refused_before_anything_is_built() -> None:
    with pytest.raises(RegistryError, match=r"unknown evaluator 'inherit'.*Did you mean 'inherited'\?"):
        check_evaluator("inherit", {})


class Careless(Evaluator):
    """Returns what it is told to, and changes the base network from its second evaluation on."""

    def __init__(self, factory: CandidateFactory, *, answer: Any = 50.0) -> None:
        self._factory, self._answer, self._calls = factory, answer, 0

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        self._calls += 1
        if self._calls > 1:
            self._factory.model.head.bias.data.add_(1.0)  # type: ignore[union-attr, operator]
        torch.rand(1), random.random()
        return self._answer  # type: ignore[no-any-return]


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EVALUATORS._table, "careless", Part(f"{__name__}:Careless"))


@pytest.mark.usefixtures("careless")
def test_an_evaluation_that_changed_the_base_network_has_no_score(tmp_path: Path) -> None:
    factory = tiny_bench()
    evaluator, before = make_evaluator("careless", factory, {}), (torch.get_rng_state(), random.getstate())
    assert float(evaluator.evaluate(factory.space.full, seed=0)) == 50.0
    with pytest.raises(RunError, match=r"'careless' changed the base network: parameter 'head\.bias' is not as it was"):
        evaluator.evaluate(factory.space.full, seed=0)
    outcome = evaluate(evaluator, factory.space.full, seed=1)  # as the local engine and Ray's actors do
    assert outcome.score is None
    assert "changed the base network" in str(outcome.error)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


@pytest.mark.usefixtures("careless")
@pytest.mark.parametrize("answer", [float("nan"), float("inf"), -0.1, 100.1, 500.0, True, None, "50", 1j])
def test_a_score_that_an_accuracy_cannot_be_is_none(answer: object) -> None:
    factory = tiny_bench()
    with pytest.raises(EvaluationError, match="'careless' must return a finite number from 0 to 100"):
        make_evaluator("careless", factory, {"answer": answer}).evaluate(factory.space.full, seed=0)


@pytest.mark.usefixtures("careless")
def test_trainings_on_ray_are_watched_as_well(tmp_path: Path) -> None:
    worker = pytest.importorskip("autoprune.engines.ray.tune_worker")
    factory = tiny_bench()
    place = WorkerSetup(factory, lambda b: make_evaluator("careless", b, {}), "short", 1, tmp_path)
    evaluations = worker.Evaluations(place)
    assert float(evaluations(Scoring(factory.space.full, 0), None)) == 50.0
    with pytest.raises(RunError, match="changed the base network"):
        evaluations(Scoring(factory.space.full, 0), None)
