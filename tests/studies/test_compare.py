from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import write_job
from torch import nn
from torch.utils.data import TensorDataset
from typer.testing import CliRunner

import autoprune
from autoprune.cli.main import app
from autoprune.config.parts import NamedPart
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.engines.local import LocalEngine
from autoprune.errors import ConfigError, EvaluationError, RegistryError, RunError
from autoprune.inherit.bn_recalibration import recalibrate_batch_norm
from autoprune.pipeline.prepared import Prepared
from autoprune.studies.comparison import CompareResult, Row
from autoprune.studies.options import CompareOptions, chain_label
from autoprune.tasks.score import packed
from autoprune.texts import ScoreScale


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 3),
    ).eval()


def _data() -> dict[str, TensorDataset]:
    generator = torch.Generator().manual_seed(1)

    def split(n: int) -> TensorDataset:
        labels = torch.randint(3, (n,), generator=generator)
        images = torch.randn(n, 1, 8, 8, generator=generator) + labels[:, None, None, None]
        return TensorDataset(images, labels)

    return {"train": split(256), "validation": split(96)}


EXAMPLE = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(2))
PARTS = {
    "allocations": ["uniform_all", "global_threshold"],
    "criteria": ["l2", "random"],
    "inherit": [[], ["bn_recalibration"]],
}


def _compared(path: Path, **changed: object) -> CompareResult:
    given = {"data": _data(), "budgets": [60, 30], **PARTS, "run_dir": path, "progress": "silent", **changed}
    return autoprune.compare(_network(), EXAMPLE, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> CompareResult:
    return _compared(tmp_path_factory.mktemp("compared") / "run")


def test_every_combination_is_scored_under_every_budget(found: CompareResult) -> None:
    cells = {(row.budget, row.allocation, row.criterion, row.inherit) for row in found.rows}
    assert cells == {
        (budget, allocation, criterion, inherit)
        for budget in (60.0, 30.0)
        for allocation in PARTS["allocations"]
        for criterion in PARTS["criteria"]
        for inherit in ("none", "bn_recalibration")
    }
    assert len(found.rows) == len(cells) == 16
    assert all(row.score is not None and row.used <= row.budget + 1e-9 for row in found.rows)


def test_rows_are_in_order_and_the_best_is_the_first(found: CompareResult) -> None:
    assert found.budgets == (60.0, 30.0)
    for budget in found.budgets:
        scores = [row.score for row in found.rows if row.budget == budget]
        assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]
        assert found.best(budget).score == scores[0]


@pytest.mark.parametrize("inherit", ["none", "bn_recalibration"])
def test_a_score_is_that_of_a_network_cut_by_hand(found: CompareResult, inherit: str) -> None:
    model, data = _network(), _data()
    space = autoprune.trace(model, EXAMPLE)
    widths = BudgetedSpace(space.search_space, {"flops": "30%"}).uniform()
    cut = space.slice(model, widths, criterion="l2").eval()
    if inherit != "none":
        order = torch.utils.data.DataLoader(data["train"], 256)  # batches of the same examples: the same averages
        recalibrate_batch_norm(cut, [next(iter(order))[0]], device=torch.device("cpu"))
    images, labels = data["validation"].tensors
    with torch.no_grad():
        right = 100 * float((cut(images).argmax(1) == labels).float().mean())
    row = next(
        r
        for r in found.rows
        if (r.budget, r.allocation, r.criterion, r.inherit) == (30.0, "uniform_all", "l2", inherit)
    )
    tolerance = 1e-4 if inherit == "none" else 3.2  # another split into batches: at most three images
    assert row.score == pytest.approx(right, abs=tolerance)
    assert tuple(row.widths.values()) == widths


def test_a_comparison_that_was_stopped_goes_on_and_measures_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: CompareResult
) -> None:
    path, scored = tmp_path / "run", []
    score = LocalEngine.score

    def stopping(self: LocalEngine, pieces: object) -> object:
        for number, outcome in score(self, pieces):  # type: ignore[arg-type]
            if limit and len(scored) >= limit:
                raise KeyboardInterrupt
            scored.append(number)
            yield number, outcome

    monkeypatch.setattr(LocalEngine, "score", stopping)
    limit = 5
    with pytest.raises(KeyboardInterrupt):
        _compared(path)
    limit = 0
    again = _compared(path)
    whole = [(r.label, r.budget, r.score) for r in found.rows]
    assert sorted(whole) == sorted((r.label, r.budget, r.score) for r in again.rows)
    distinct = {(tuple(r.widths.values()), r.criterion, r.inherit) for r in found.rows}
    assert len(scored) == len(distinct)


def test_another_comparison_in_the_same_place_is_refused(tmp_path: Path) -> None:
    parts = {"allocations": ["uniform_all"], "criteria": ["l2"], "inherit": [[]]}
    _compared(tmp_path / "run", **parts)
    with pytest.raises(RunError, match="another comparison: budgets, parts or job differ"):
        _compared(tmp_path / "run", **{**parts, "criteria": ["l1"]})
    network = _network()
    with torch.no_grad():
        next(network.parameters()).mul_(2)
    same = {"data": _data(), "budgets": [60, 30], **parts, "run_dir": tmp_path / "run", "progress": "silent"}
    with pytest.raises(RunError, match=r"another comparison: .*weights"):
        autoprune.compare(network, EXAMPLE, **same)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"criteria": ["l3"]}, RegistryError, "unknown criterion 'l3'.*l1"),
        ({"allocations": ["uniform"]}, RegistryError, "unknown allocation 'uniform'"),
        ({"inherit": [["bn"]]}, RegistryError, "unknown inheritance 'bn'"),
        ({"budgets": [0]}, ConfigError, "above 0 and below 100"),
        ({"budgets": [100]}, ConfigError, "above 0 and below 100"),
        ({"budgets": []}, ConfigError, "budgets"),
        ({"criteria": ["l2", "l2"]}, ConfigError, "criteria names l2 twice"),
        ({"metric": "flop"}, RegistryError, "flop"),
        ({"data": None}, ConfigError, "needs something to score with"),
        (
            {"data": None, "score_func": lambda model: 1.0, "criteria": ["fisher"]},
            ConfigError,
            "'fisher' needs curvature",
        ),
        (
            {"data": None, "score_func": lambda model: 1.0, "inherit": [["reuse"]]},
            ConfigError,
            "reuse needs calibration",
        ),
        (
            {"allocations": [{"name": "published", "settings": {"file": "none.yaml"}}]},
            ConfigError,
            "none.yaml cannot be",
        ),
        (
            {"inherit": ["bn_recalibration"]},
            ConfigError,
            r"inherit.0: must be a list, for example \[bn_recalibration\]",
        ),
    ],
)
def test_what_cannot_be_used_is_named_and_nothing_is_written(
    tmp_path: Path, changed: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _compared(tmp_path / "run", **changed)
    assert not (tmp_path / "run").exists()


def test_a_criterion_nobody_named_is_left_out_with_a_note_where_it_cannot_be_used(tmp_path: Path) -> None:
    def score(model: nn.Module) -> float:
        with torch.no_grad():
            return -float(model(torch.ones(2, 1, 8, 8)).square().mean())

    images = list(_data()["train"].tensors[0].split(64))
    found = _compared(tmp_path / "run", data=images, score_func=score, criteria=None, budgets=[50])
    assert any(note.startswith("taylor_weight is left out") for note in found.notes)
    assert "l2" in {row.criterion for row in found.rows}
    with pytest.raises(ConfigError, match="taylor_weight"):
        _compared(tmp_path / "other", data=images, score_func=score, criteria=["taylor_weight"], budgets=[50])


@pytest.mark.parametrize(
    "evaluator",
    [
        {"name": "blend", "settings": {"parts": ["inherited", "zero_cost"]}},
        {"name": "supernet", "settings": {}},
        {"name": "zero_cost", "settings": {}},
    ],
)
def test_scores_that_cannot_stand_beside_the_unpruned_network_are_refused(
    tmp_path: Path, evaluator: dict[str, object]
) -> None:
    job = write_job(tmp_path / "job.yaml", {"search.evaluator": evaluator})
    result = CliRunner().invoke(app, ["compare", str(job), "--budgets", "50", "--to", str(tmp_path / "run")])
    assert isinstance(result.exception, ConfigError)
    assert f"search.evaluator is '{evaluator['name']}'" in str(result.exception)
    assert "set search.evaluator to inherited" in str(result.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", [["resume"], ["report"], ["export", "--to", "out"]])
def test_commands_for_searches_say_that_this_is_a_comparison(found: CompareResult, command: list[str]) -> None:
    result = CliRunner().invoke(app, [command[0], str(found.directory), *command[1:]])
    assert isinstance(result.exception, RunError)
    assert "holds a comparison, no search" in str(result.exception)
    assert "--to" in str(result.exception)


def test_a_criterion_that_fails_on_the_trained_network_alone_is_left_out_unless_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = Prepared.scores

    def failing(self: Prepared, base: nn.Module, **given: Any) -> Any:
        chosen = given.get("criterion")
        if chosen is not None and chosen.name == "fpgm" and "batches" not in given:  # not while it is tried
            raise EvaluationError("no scores today")
        return scores(self, base, **given)

    monkeypatch.setattr(Prepared, "scores", failing)
    found = _compared(tmp_path / "run", criteria=None, budgets=[50], inherit=[[]])
    assert "fpgm is left out: no scores today" in found.notes
    assert {row.criterion for row in found.rows} == {"l2", "taylor_weight"}
    with pytest.raises(EvaluationError, match="no scores today"):
        _compared(tmp_path / "other", criteria=["fpgm"], budgets=[50], inherit=[[]])


def test_a_list_of_methods_nobody_named_is_left_out_where_there_are_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoprune.studies.compared_parts._INHERIT", ((), ("reuse", "bn_recalibration")))
    given = {"data": None, "score_func": lambda model: 1.0, "inherit": None, "budgets": [50]}
    found = _compared(tmp_path / "run", **given)
    assert any(note.startswith("reuse + bn_recalibration is left out: inherit: reuse needs") for note in found.notes)
    assert {row.inherit for row in found.rows} == {"none", "bn_recalibration"}
    assert all(row.score is not None for row in found.rows)


def test_a_pretrained_network_is_compared_on_inputs_alone(tmp_path: Path) -> None:
    images = _data()["train"].tensors[0]
    found = _compared(tmp_path / "run", data=images, measure="divergence", budgets=[60], inherit=[[]])
    assert found.full == 0.0
    assert found.scale.name == "divergence"
    assert not found.scale.higher_is_better
    shown = [row["score"] for row in found.to_json()["rows"]]
    assert shown == sorted(shown)  # the best first is the lowest
    assert all(score > 0 for score in shown)


def _row(score: float, right: np.ndarray | None = None, **changed: object) -> Row:
    given = {
        "budget": 50.0,
        "allocation": "uniform_all",
        "criterion": "l2",
        "inherit": "none",
        "widths": {"a": 1},
        "used": 50.0,
    }
    examples = None if right is None else packed(right)
    return Row(**{**given, **changed}, score=score, standard_error=1.0, examples=examples)  # type: ignore[arg-type]


def _comparison(*rows: Row) -> CompareResult:
    return CompareResult.of(
        rows,
        metric="flops",
        scale=ScoreScale("accuracy", "%"),
        full=90.0,
        usual=("l2", "none"),
        notes=(),
        directory=Path("x"),
    )


def test_a_lead_is_judged_on_the_same_examples() -> None:
    rng = np.random.default_rng(0)
    base = rng.random(1000) < 0.5
    better = base.copy()
    better[np.flatnonzero(~base)[:30]] = True  # 30 more right, none lost: far beyond chance, though 3 points are not
    found = _comparison(_row(100 * base.mean(), base), _row(100 * better.mean(), better, allocation="other"))
    assert "other, l2, none" in found.sentences[0]
    assert "beyond noise" in found.sentences[0]
    spread = 100 * np.std(better.astype(float) - base, ddof=1) / math.sqrt(1000)
    assert f"±{1.959964 * spread:.2g}" in found.sentences[0]
    alone = _comparison(_row(100 * base.mean()), _row(100 * better.mean(), allocation="other"))
    assert "beyond noise" in alone.sentences[0]  # 3 points against 1.96 * sqrt(2)
    close = _comparison(_row(50.0), _row(52.0, allocation="other"))
    assert "within noise" in close.sentences[0]


def test_the_best_of_many_needs_a_larger_lead() -> None:
    two = _comparison(_row(50.0), _row(53.0, allocation="other"))
    many = _comparison(_row(50.0), *(_row(53.0 - i / 100, allocation=f"other{i}") for i in range(40)))
    assert "beyond noise" in two.sentences[0]
    assert "within noise" in many.sentences[0]


def test_failed_rows_come_last_and_are_told(found: CompareResult) -> None:
    failed = Row(50.0, "a", "l2", "none", {"a": 1}, 50.0, None, error="ValueError: no")
    told = _comparison(failed, _row(-3.0))
    assert [row.score for row in told.rows] == [-3.0, None]
    assert json.dumps(told.to_json(), allow_nan=False)


def test_the_pages_hold_every_row(found: CompareResult) -> None:
    markdown = (found.directory / "compare.md").read_text()
    page = (found.directory / "compare.html").read_text()
    content = json.loads((found.directory / "compare.json").read_text())
    assert len(content["rows"]) == 16
    assert sum(line.startswith("| ") and "widths by" not in line for line in markdown.splitlines()) == 16
    assert page.count("<tr>") == 16 + 2
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    for sentence in found.sentences:
        assert sentence in markdown


def test_the_command_line_takes_a_model(tmp_path: Path) -> None:
    called = ["compare", "resnet20", "--data", "digits", "--arg", "in_channels=1", "--arg", "width=0.25"]
    weights = tmp_path / "base.pt"
    torch.manual_seed(0)
    from autoprune.zoo import build_model

    torch.save(build_model("resnet20", {"in_channels": 1, "width": 0.25}).state_dict(), weights)
    options = ["--weights", str(weights), "--budgets", "50", "--criteria", "l2", "--inherit", "none,bn_recalibration"]
    more = ["--allocations", "uniform_all", "--to", str(tmp_path / "run"), "--progress", "silent"]
    done = CliRunner().invoke(app, [*called, *options, *more])
    assert done.exit_code == 0, done.output
    assert "The full network" in done.output
    assert "uniform_all" in done.output
    assert (tmp_path / "run" / "compare.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet20"], "needs data to score on"),
        (["configs/digits_resnet20.yaml", "--data", "digits"], "--data goes with a MODEL"),
        (["resnet20", "--data", "digits", "--budgets", "half"], "give percentages with commas"),
    ],
)
def test_bad_calls_are_one_clear_error(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(app, ["compare", *arguments], catch_exceptions=False)


def test_lists_of_methods_have_a_label() -> None:
    chain = (NamedPart(name="a", settings={"b": 1}), NamedPart(name="c"))
    assert chain_label(chain) == "a(b=1) + c"
    assert chain_label(()) == "none"
    assert CompareOptions(budgets=(25, 50)).budgets == (50, 25)


@pytest.mark.slow
def test_on_ray_the_scores_are_the_same(tmp_path: Path, found: CompareResult) -> None:
    pytest.importorskip("ray")
    again = _compared(tmp_path / "run", engine={"name": "ray", "workers": 2})
    assert sorted((r.label, r.budget, r.score) for r in again.rows) == sorted(
        (r.label, r.budget, r.score) for r in found.rows
    )


def test_rules_that_have_networks_scored_or_compare_filters_are_compared_too(tmp_path: Path) -> None:
    rules = ["cluster_count", {"name": "knapsack", "settings": {"points": 2}}]
    compared = _compared(tmp_path / "c", allocations=rules, criteria=["l2", "random"], inherit=[[]], budgets=[50])
    assert {(row.allocation, row.criterion) for row in compared.rows} == {
        (rule, criterion) for rule in ("cluster_count", "knapsack(points=2)") for criterion in ("l2", "random")
    }
    assert all(row.score is not None for row in compared.rows)
