"""A short training before judging: how many steps, at which learning rate, learning from whom."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autoprune.config.training import Recipe
from autoprune.data.shortened import Shortened
from autoprune.errors import ConfigError, EvaluationError
from autoprune.evaluators.artefact import prepared
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.making import make_evaluator
from autoprune.tasks.callable import CallableTask
from autoprune.tasks.classification import ClassificationTask
from autoprune.testing.evaluators import EvaluatorContract, Make, tiny_bench, tiny_splits


class TestShortTraining(EvaluatorContract):
    @pytest.fixture(
        params=[{"steps": 8, "epochs": 4}, {"steps": None, "epochs": 2, "lr": 0.05, "distil": True}], ids=str
    )
    def make(self, request: pytest.FixtureRequest) -> Make:
        return lambda factory: make_evaluator("short_training", factory, request.param)


def made(factory: CandidateFactory, folder: Path, **settings: Any) -> Evaluator:
    evaluator = make_evaluator("short_training", factory, settings)
    evaluator.load(prepared(evaluator, folder, seed=0))
    return evaluator


def test_so_many_steps_are_taken_and_every_epoch_reads_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    factory, steps, seen = tiny_bench(), [], []
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: (steps.append(1), step(self))[1])
    batches = Shortened.batches

    def read(self: Shortened, *arguments: Any, **settings: Any) -> Any:
        for inputs, targets in batches(self, *arguments, **settings):
            seen.append(inputs)
            yield inputs, targets

    monkeypatch.setattr(Shortened, "batches", read)
    evaluator = made(factory, tmp_path, steps=6, epochs=2, lr=0.1)
    del steps[:], seen[:]
    evaluator.evaluate(factory.space.uniform(0.5), seed=0)
    assert len(steps) == 6
    trained = seen[-6:]
    rows = torch.cat(trained).flatten(1)
    assert len(rows) == 6 * 32
    first, second = rows[: 3 * 32], rows[3 * 32 :]
    shared = sum(bool((row == first).all(1).any()) for row in second)
    assert shared < 0.8 * len(second)  # 96 of 256 by chance: a share of 0.375


def test_the_learning_rate_is_the_best_of_those_tried_and_the_same_wherever_it_is_loaded(tmp_path: Path) -> None:
    factory = tiny_bench()
    evaluator = make_evaluator("short_training", factory, {"steps": 8})
    folder = prepared(evaluator, tmp_path, seed=0)
    (file,) = folder.iterdir()
    found = json.loads(file.read_text())
    scores = dict(map(tuple, found["tried"]))
    assert sorted(scores) == pytest.approx([0.001, 0.003, 0.01, 0.03, 0.1])
    assert scores[found["lr"]] == max(scores.values())
    fixed = made(tiny_bench(), tmp_path / "fixed", steps=8, lr=found["lr"])
    evaluator.load(folder)
    widths = factory.space.uniform(0.25)
    assert evaluator.evaluate(widths, seed=4) == fixed.evaluate(widths, seed=4)


def test_rates_at_which_it_diverges_are_not_chosen(tmp_path: Path) -> None:
    factory = tiny_bench()
    task = ClassificationTask(tiny_splits(), Recipe(epochs=3, lr=1e6, batch_size=32), device=torch.device("cpu"))
    with pytest.raises(EvaluationError, match=r"diverges at every learning rate from 10000 to 1e\+06"):
        prepared(make_evaluator("short_training", replace(factory, task=task), {"steps": 8}), tmp_path, seed=0)


def test_training_lifts_what_was_torn_apart(tmp_path: Path) -> None:
    factory = replace(tiny_bench(), inherit=("bn_recalibration",))
    widths = factory.space.uniform(0.25)
    torn = float(make_evaluator("inherited", factory, {}).evaluate(widths, seed=0))
    assert float(made(factory, tmp_path, steps=16).evaluate(widths, seed=0)) > torn + 10


def test_it_learns_from_the_base_network_where_asked(tmp_path: Path) -> None:
    factory = tiny_bench()
    widths = factory.space.uniform(0.25)
    alone = made(factory, tmp_path / "a", steps=8, lr=0.1).evaluate(widths, seed=0)
    taught = made(factory, tmp_path / "b", steps=8, lr=0.1, distil=True).evaluate(widths, seed=0)
    recipe = Recipe(epochs=3, lr=0.1, batch_size=32, weight_decay=5e-4, objective={"name": "distillation"})
    task = ClassificationTask(tiny_splits(), recipe, device=torch.device("cpu"))
    by_job = made(replace(factory, task=task), tmp_path / "c", steps=8, lr=0.1).evaluate(widths, seed=0)
    assert taught == by_job != alone
    scratch = [
        make_evaluator("scratch", factory, {"epochs": 3, "distil": distil}).evaluate(factory.space.full, seed=0)
        for distil in (False, True)
    ]
    assert scratch[0] != scratch[1]


def by_functions() -> CandidateFactory:
    task = CallableTask(lambda model: 1.0, lambda model, epochs, seed: None, device=torch.device("cpu"))
    return replace(tiny_bench(), task=task)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"steps": True}, "steps must be at least 1, a whole number, got True"),
        ({"steps": 2, "epochs": 3}, "2 steps cannot be spread over 3 epochs, .*; set epochs to 2 or less"),
        ({"distil": "no"}, "distil must be true or false, without quotes, got 'no'"),
        ({"keep_examples": 1}, "keep_examples must be true or false, without quotes, got 1"),
        ({"lr": -1}, "lr must be a number above 0, got -1"),
        ({"lr": True}, "lr must be a number above 0, got True"),
    ],
)
def test_wrong_settings_of_a_short_training_say_what_is_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_evaluator("short_training", tiny_bench(), settings)


def test_a_task_of_functions_trains_in_whole_epochs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="whole epochs only; set steps to null"):
        make_evaluator("short_training", by_functions(), {})
    with pytest.raises(ConfigError, match="distil needs a task that trains by a recipe"):
        make_evaluator("short_training", by_functions(), {"steps": None, "distil": True})
    evaluator = made(by_functions(), tmp_path, steps=None)
    assert float(evaluator.evaluate(evaluator._inner._factory.space.full, seed=0)) == 1.0  # type: ignore[attr-defined]


def test_a_shortened_split_reads_other_examples_for_other_seeds_and_never_more() -> None:
    whole = tiny_splits().train
    shortened = Shortened(whole, 50)
    assert len(shortened) == 50
    first, again, other = (torch.cat([x for x, _ in shortened.batches(32, seed=seed)]) for seed in (0, 0, 1))
    assert len(first) == 50
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(Shortened(whole, 1_000)) == len(whole)
    assert shortened.fingerprint != whole.fingerprint
    with pytest.raises(ConfigError, match="at least 1 example, got 0"):
        Shortened(whole, 0)
