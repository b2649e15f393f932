from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import same_weights
from torch import nn

from autoprune.errors import ConfigError, RegistryError
from autoprune.evaluators import EVALUATORS
from autoprune.evaluators.base import Workbench, check_evaluator, make_evaluator
from autoprune.space.graph_form import graph_network
from autoprune.space.trace import trace
from autoprune.testing.evaluators import EvaluatorContract, Make, tiny_bench

QUICK: dict[str, dict[str, Any]] = {"inherited": {"calibration_batches": 4}, "scratch": {"epochs": 2}}


class TestEveryEvaluator(EvaluatorContract):
    @pytest.fixture(params=EVALUATORS.names())
    def make(self, request: pytest.FixtureRequest) -> Make:
        return lambda bench: make_evaluator(request.param, bench, QUICK.get(request.param, {}))


@pytest.fixture(scope="module")
def bench() -> Workbench:
    return tiny_bench()


def test_inherited_weights_of_the_whole_network_score_as_the_base_network(bench: Workbench) -> None:
    evaluator = make_evaluator("inherited", bench, {"calibration_batches": 0})
    assert evaluator.evaluate(bench.space.full, seed=0) == bench.task.score(bench.model)


def test_recalibrated_statistics_are_those_of_the_cut_network(bench: Workbench) -> None:
    """With statistics that fit nothing, only recalibration gives the network its accuracy back."""
    spoilt = copy.deepcopy(bench.model)
    for module in spoilt.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.fill_(50.0)
    other = Workbench(spoilt, bench.space, bench.ranking, bench.task, bench.base_epochs)
    without, with_, unspoilt = (
        make_evaluator("inherited", b, {"calibration_batches": n}).evaluate(bench.space.full, seed=0)
        for b, n in ((other, 0), (other, 8), (bench, 8))
    )
    assert with_ == unspoilt
    assert with_ > without + 20


@pytest.mark.parametrize("name", sorted(QUICK))
def test_a_network_that_runs_as_its_graph_scores_like_the_module(bench: Workbench, name: str) -> None:
    """To the last bit, trained or not: batch norm, dropout and initialisation are those of the user's own modules."""
    traced = trace(bench.model, torch.zeros(1, 1, 6, 6))
    space = replace(traced.space, form="graph")
    network = graph_network(bench.model, traced.program, space, traced.example)
    graph = Workbench(network, space, bench.ranking, bench.task, bench.base_epochs)
    for widths in (space.full, space.uniform(0.5)):
        scores = [make_evaluator(name, b, QUICK[name]).evaluate(widths, seed=2) for b in (bench, graph)]
        assert scores[0] == scores[1]
        cuts = [b.candidate(widths) for b in (bench, graph)]
        if name == "scratch":
            for cut in cuts:
                bench.task.train(cut, epochs=1, seed=3)
        assert same_weights(cuts[0], cuts[1])


def test_scratch_looks_at_no_inherited_weight_and_follows_its_seed(bench: Workbench) -> None:
    spoilt = copy.deepcopy(bench.model)
    with torch.no_grad():
        for parameter in spoilt.parameters():
            parameter.zero_()
    other = Workbench(spoilt, bench.space, bench.ranking, bench.task, bench.base_epochs)
    widths = bench.space.uniform(0.5)
    scores = [make_evaluator("scratch", b, {"epochs": 1}).evaluate(widths, seed=3) for b in (bench, other)]
    assert scores[0] == scores[1]
    evaluator = make_evaluator("scratch", bench, {"epochs": 1})
    assert len({evaluator.evaluate(widths, seed=seed) for seed in range(5)}) > 1


@pytest.mark.parametrize("name", ["inherited", "scratch"])
def test_a_limit_scores_a_part_except_where_all_is_asked_for(bench: Workbench, name: str) -> None:
    part = make_evaluator(name, bench, {**QUICK[name], "validation_limit": 7})
    whole = make_evaluator(name, bench, QUICK[name])
    widths = bench.space.smallest
    of_seven, of_all = part.evaluate(widths, seed=0), whole.evaluate(widths, seed=0)
    assert of_seven * 7 / 100 == pytest.approx(round(of_seven * 7 / 100))
    assert of_seven != of_all
    assert part.evaluate(widths, seed=0, full=True) == of_all


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("inherited", {"calibration_batches": -1}, "calibration_batches must be at least 0"),
        ("inherited", {"validation_limit": 0}, "validation_limit must be at least 1"),
        ("inherited", {"epochs": 1}, "has no setting 'epochs'; its settings are calibration_batches, validation_limit"),
        ("inherited", {"calibration_batch": 1}, "Did you mean 'calibration_batches'"),
        ("inherited", {"bench": None}, "has no setting 'bench'"),
        ("inherited", {"calibration_batches": "many"}, "calibration_batches must be"),
        ("scratch", {"epochs": 0}, "epochs must be at least 1"),
        ("scratch", {"epochs": 1.5}, "epochs must be"),
        ("scratch", {"validation_limit": -3}, "validation_limit must be at least 1"),
    ],
)
def test_bad_settings_are_refused(bench: Workbench, name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"evaluator '{name}'.*{message}"):
        make_evaluator(name, bench, settings)


def test_an_unknown_evaluator_is_refused_before_anything_is_built() -> None:
    with pytest.raises(RegistryError, match=r"unknown evaluator 'inherit'.*Did you mean 'inherited'\?"):
        check_evaluator("inherit", {})
