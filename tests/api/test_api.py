from __future__ import annotations

import copy
import dataclasses
import inspect
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny import (
    Convolutions,
    Perceptron,
    X,
    closeness,
    fit,
    nan_score,
    perceptron,
    pictures,
    regression,
    same_weights,
)
from torch import nn
from torch.utils.data import DataLoader

import autoprune
from autoprune.api import search as api
from autoprune.api.arguments import SearchArguments
from autoprune.errors import AutopruneError, BudgetError, ConfigError, EvaluationError, RunError, SpaceError, TraceError


@pytest.fixture(scope="module")
def model() -> Perceptron:
    return perceptron()


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, model: Perceptron) -> autoprune.SearchResult:
    return regression(tmp_path_factory.mktemp("runs") / "run", model)


def test_a_result_holds_what_was_found(result: autoprune.SearchResult) -> None:
    space = result.space
    assert result.widths in space.search_space
    assert space.cost(result.widths)["flops"] <= 0.5 * space.cost(space.full)["flops"]
    origins = [t.origin for t in result.trials]
    assert origins[0] == "uniform_all"
    assert origins.count("controller") == 4
    assert [arm.name for arm in result.baselines] == ["uniform_all", "uniform_inner", "random_median"]
    assert result.verdict is not None
    assert result.verdict.sentence.startswith("At 50 % of the FLOPs the searched widths are ")
    assert {c.protocol for c in result.verdict.comparisons} == {"fine_tune", "scratch_e"}


def test_the_report_is_written_anew(result: autoprune.SearchResult) -> None:
    page = result.directory / "report.html"
    before = page.read_text()
    page.unlink()
    assert result.report() == page
    assert page.read_text() == before


def test_the_model_is_the_winner_with_its_final_weights(result: autoprune.SearchResult) -> None:
    assert not result.model.training
    assert tuple(result.model(X).shape) == (64, 1)
    first = next(final for final in result.record.finals if final.arm == "winner")
    assert closeness(result.model) == pytest.approx(first.score, abs=1e-6)
    named = {g.name: w for g, w in zip(result.space.groups, result.widths, strict=True)}
    assert {"first": result.model.first.out_features, "second": result.model.second.out_features} == named


def test_a_saved_network_is_loaded_bit_by_bit(
    result: autoprune.SearchResult, model: Perceptron, tmp_path: Path
) -> None:
    folder = result.save(tmp_path / "network")
    loaded = autoprune.load(folder, model=model)
    assert torch.equal(loaded(X), result.model(X))
    with pytest.raises(RunError, match=r"model=full_model"):
        autoprune.load(folder)
    with pytest.raises(RunError, match="not empty"):
        result.save(tmp_path / "network")


def test_loading_needs_no_pickle(
    result: autoprune.SearchResult, model: Perceptron, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("pickle was used")

    for module, name in (("pickle", "load"), ("pickle", "loads"), ("pickle", "Unpickler"), ("torch", "load")):
        monkeypatch.setattr(f"{module}.{name}", refuse)
    autoprune.load(result.directory / "export", model=model)


@pytest.mark.parametrize("classification", [False, True])
def test_what_belongs_to_the_caller_is_as_before(tmp_path: Path, classification: bool) -> None:
    if classification:
        model: nn.Module = Convolutions(classes=4)
        model.norm1.eval()
    else:
        model = perceptron()
    weights = copy.deepcopy(model)
    flags = [module.training for module in model.modules()]
    grads = [parameter.requires_grad for parameter in model.parameters()]
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    before = (random.getstate(), np.random.get_state(), torch.get_rng_state(), torch.get_num_threads())

    if classification:
        autoprune.search(model, torch.zeros(1, 1, 8, 8), **classified(tmp_path / "run"), trained=False, threads=1)
    else:
        regression(tmp_path / "run", model, threads=1)

    after = (random.getstate(), np.random.get_state(), torch.get_rng_state(), torch.get_num_threads())
    assert before[0] == after[0]
    assert before[1][0] == after[1][0]
    assert all(np.array_equal(a, b) for a, b in zip(before[1][1:], after[1][1:], strict=True))
    assert torch.equal(before[2], after[2])
    assert before[3] == after[3]
    assert same_weights(model, weights)
    assert type(model) is type(weights)
    assert [module.training for module in model.modules()] == flags
    assert [parameter.requires_grad for parameter in model.parameters()] == grads
    assert all(parameter.grad is None for parameter in model.parameters()) or not classification


def classified(run_dir: Path) -> dict[str, Any]:
    return {
        "constraints": {"flops": "60%", "params": "50%"},
        "data": (pictures(64, 0), pictures(48, 1), pictures(48, 2)),
        "training": {"epochs": 2, "batch_size": 16},
        "trials": 3,
        "verdict": {"seeds": 1, "fine_tune_epochs": 1, "random_candidates": 2},
        "device": "cpu",
        "progress": "silent",
        "run_dir": run_dir,
    }


def test_two_constraints_are_kept_together_on_a_tuple_of_data_sets(tmp_path: Path) -> None:
    model = Convolutions(classes=4)
    result = autoprune.search(model, torch.zeros(1, 1, 8, 8), **classified(tmp_path / "run"))
    full = result.record.full_costs
    for trial in result.trials:
        assert trial.costs["flops"] <= 0.6 * full["flops"]
        assert trial.costs["params"] <= 0.5 * full["params"]
    assert result.verdict is not None
    assert result.verdict.sentence.startswith("At 60 % of the FLOPs and 50 % of the parameters ")
    assert result.record.test_split


def test_loaders_by_name_do_as_well(tmp_path: Path) -> None:
    loaders = {
        "train": DataLoader(pictures(64, 0), 16, shuffle=True),
        "validation": DataLoader(pictures(48, 1), 16),
    }
    changes = classified(tmp_path / "run") | {"data": loaders}
    result = autoprune.search(Convolutions(classes=4), torch.zeros(1, 1, 8, 8), **changes)
    assert result.verdict is not None
    assert not result.record.test_split


def test_without_a_train_function_there_is_a_winner_and_no_verdict(tmp_path: Path, model: Perceptron) -> None:
    result = regression(tmp_path / "run", model, train_func=None, verdict=None)
    assert result.verdict is None
    assert result.record.finals == ()
    assert tuple(result.model(X).shape) == (64, 1)
    assert result.report().is_file()


def test_the_same_seed_gives_the_same_search_and_another_one_another(tmp_path: Path, model: Perceptron) -> None:
    a, b, c = (regression(tmp_path / str(i), model, seed=seed) for i, seed in enumerate((5, 5, 6)))
    assert [(t.widths, t.score) for t in a.trials] == [(t.widths, t.score) for t in b.trials]
    assert a.record.finals[0].score == b.record.finals[0].score
    assert [t.widths for t in a.trials] != [t.widths for t in c.trials]


def test_the_run_directory_is_free_by_default(
    tmp_path: Path, model: Perceptron, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = [regression(None, model, train_func=None, verdict=None).directory for _ in range(2)]
    assert found == [tmp_path / "runs" / "search", tmp_path / "runs" / "search-2"]


WRONG: dict[str, tuple[dict[str, Any], type[AutopruneError], str]] = {
    "budget below the smallest": ({"constraints": {"flops": "0.1%"}}, BudgetError, "smallest network .* costs"),
    "malformed budget": ({"constraints": {"flops": "half"}}, BudgetError, 'such as "50%"'),
    "no mapping as a budget": ({"constraints": "50%"}, ConfigError, "constraints: .*dictionary"),
    "no budget": ({"constraints": {}}, BudgetError, "no budget given"),
    "misspelt metric": ({"constraints": {"flop": "50%"}}, ConfigError, "Did you mean 'flops'"),
    "misspelt controller": ({"controller": "surogate"}, ConfigError, "Did you mean 'surrogate'"),
    "misspelt setting": (
        {"controller": {"name": "evolution", "settings": {"populaton": 4}}},
        ConfigError,
        "Did you mean 'population'",
    ),
    "misspelt criterion": ({"criterion": "l3"}, ConfigError, "choose one of l1"),
    "misspelt evaluator": ({"evaluator": "inherit"}, ConfigError, "Did you mean 'inherited'"),
    "evaluator's setting out of range": (
        {"evaluator": {"name": "inherited", "settings": {"calibration_batches": -1}}},
        ConfigError,
        "at least 0",
    ),
    "evaluator's setting of a wrong type": (
        {"evaluator": {"name": "inherited", "settings": {"calibration_batches": "many"}}},
        ConfigError,
        "evaluator 'inherited'",
    ),
    "misspelt option": ({"training": {"epoch": 3}}, ConfigError, "Did you mean 'epochs'"),
    "misspelt device": ({"device": "gpu"}, ConfigError, "allowed: auto, cpu"),
    "misspelt progress": ({"progress": "loud"}, ConfigError, "allowed: auto"),
    "a storage that cannot be opened": ({"storage": "sqlite:////no/folder/x.db"}, RunError, "cannot be opened"),
    "nothing to score with": ({"score_func": None}, ConfigError, "something to score with"),
    "a verdict without a train function": (
        {"train_func": None, "verdict": {"seeds": 1}},
        ConfigError,
        "no train_func",
    ),
    "functions that nothing would call": (
        {"score_func": None, "data": "digits"},
        ConfigError,
        "train_func is for a search",
    ),
    "an optimizer that train_func is not told": (
        {"training": {"optimizer": "adamw"}},
        ConfigError,
        "training: optimizer cannot be used: train_func trains",
    ),
    "a recipe that train_func is not told": (
        {"training": {"lr": 0.5, "batch_size": 8, "weight_decay": 0.0, "augment": False, "label_smoothing": 0.1}},
        ConfigError,
        "training: lr, weight_decay, batch_size, label_smoothing, augment cannot be used: train_func trains",
    ),
    "a learning rate that train_func is not told": (
        {"verdict": {"protocols": [{"name": "fine_tune", "settings": {"lr_share": 0.5}}]}},
        ConfigError,
        r"protocol 'fine_tune\(lr_share=0.5\)': lr_share cannot be used: train_func trains",
    ),
    "a protocol that stands twice": (
        {"verdict": {"protocols": ["fine_tune", "scratch_e", {"name": "fine_tune"}]}},
        ConfigError,
        "verdict.protocols: fine_tune stands twice",
    ),
    "NaN scores": ({"score_func": nan_score}, EvaluationError, "finite number, higher is better; it returned nan"),
    "everything excluded": ({"space": {"exclude": ["*"]}}, SpaceError, "nothing in this model can be pruned"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_found_before_anything_is_written(
    case: str, tmp_path: Path, model: Perceptron, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        regression(tmp_path / "run", model, **changes)
    assert not list(tmp_path.iterdir())


def test_a_used_directory_is_refused_before_the_model_is_traced(
    tmp_path: Path, model: Perceptron, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").touch()
    monkeypatch.setattr("autoprune.pipeline.driver.prepare", lambda *_: pytest.fail("long work was begun"))
    with pytest.raises(RunError, match="in use already"):
        regression(tmp_path, model)


def test_a_model_that_does_not_fit_the_data_is_named(tmp_path: Path) -> None:
    given = classified(tmp_path / "run") | {"data": "digits"}
    with pytest.raises(ConfigError, match="4 outputs but the data have 10 classes"):
        autoprune.search(Convolutions(classes=4), torch.zeros(1, 1, 16, 16), **given)
    with pytest.raises(ConfigError, match=r"does not run on the data's inputs of shape \(1, 16, 16\)"):
        autoprune.search(Convolutions(in_channels=3), torch.zeros(1, 3, 16, 16), **given)
    assert not (tmp_path / "run").exists()


def test_traced_spaces_answer_questions(model: Perceptron) -> None:
    space = autoprune.trace(model, X[:1])
    assert [(g.name, g.width, g.choices[-1]) for g in space.groups] == [("first", 16, 16), ("second", 12, 12)]
    assert space.full == (16, 12)
    assert space.uniform(0.5) == (8, 6)
    assert space.nearest([7.6, 100]) == (8, 12)
    by_hand = {"flops": 4 * 16 + 16 * 12 + 12, "params": 5 * 16 + 17 * 12 + 13}
    assert space.cost(space.full).items() >= by_hand.items()
    narrow = space.slice(model, (8, 6), criterion="l2")
    assert (narrow.first.out_features, narrow.last.in_features) == (8, 6)
    assert model.first.out_features == 16
    assert all(part.reason for part in space.frozen)
    with pytest.raises(SpaceError, match="'second' cannot be 99 wide"):
        space.cost((8, 99))


def test_space_options_in_every_form(model: Perceptron, tmp_path: Path) -> None:
    (tmp_path / "halves.yaml").write_text("ratios: [0.5]\n")
    forms: list[Any] = [{"ratios": [0.5]}, autoprune.SpaceOptions(ratios=(0.5,)), tmp_path / "halves.yaml"]
    for form in forms:
        assert [g.choices for g in autoprune.trace(model, X[:1], options=form).groups] == [(8, 16), (6, 12)]
    with pytest.raises(ConfigError, match="Did you mean 'ratios'"):
        autoprune.trace(model, X[:1], options={"ratio": [0.5]})
    with pytest.raises(ConfigError, match="cannot read"):
        autoprune.trace(model, X[:1], options=tmp_path / "none.yaml")


def test_a_model_that_cannot_run_or_be_exported_is_one_clear_error(model: Perceptron) -> None:
    with pytest.raises(TraceError, match=r"Perceptron cannot be traced .*Check that model"):
        autoprune.trace(model, torch.zeros(1, 5))


def test_resuming_needs_a_directory_with_a_run(tmp_path: Path, model: Perceptron) -> None:
    with pytest.raises(ConfigError, match="resume=True needs run_dir"):
        regression(None, model, resume=True)
    with pytest.raises(RunError, match="is not a run directory"):
        regression(tmp_path / "none", model, resume=True)
    with pytest.raises(RunError, match="is not a run directory"):
        autoprune.resume(tmp_path)


def test_a_run_from_python_is_not_resumed_from_its_files_alone(result: autoprune.SearchResult) -> None:
    with pytest.raises(RunError, match=r"autoprune\.search\(…, .*resume=True\)"):
        autoprune.resume(result.directory)


def test_the_job_of_a_run_is_plain_text(result: autoprune.SearchResult) -> None:
    job = yaml.safe_load((result.directory / "job.yaml").read_text())
    assert job["constraints"] == {"flops": "50%"}
    assert job["search"]["trials"] == 4


def test_train_func_sees_the_epochs_and_seeds_of_the_job(tmp_path: Path, model: Perceptron) -> None:
    seen: list[tuple[int, int]] = []

    def watched(network: nn.Module, epochs: int, seed: int) -> None:
        seen.append((epochs, seed))
        fit(network, 1, seed)

    regression(tmp_path / "run", model, train_func=watched, trained=False, seed=3)
    assert seen[0] == (2, 3), "the base network"
    assert {seed for _, seed in seen[1:]} == {3, 4}


def test_the_arguments_are_said_alike_in_both_places() -> None:
    parameters = inspect.signature(api.search).parameters
    keywords = {name for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
    assert keywords == {field.name for field in dataclasses.fields(SearchArguments) if field.kw_only}
