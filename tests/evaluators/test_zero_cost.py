"""Zero-cost proxies as evaluators, and whole searches whose scores are not those of the task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import Convolutions, pictures, regression
from torch import Tensor, nn

import autoprune
from autoprune.errors import ConfigError, RegistryError
from autoprune.evaluators.making import make_evaluator
from autoprune.evaluators.zero_cost import be_looked_at
from autoprune.proxies import PROXIES
from autoprune.proxies.base import watching
from autoprune.report.facts import collect
from autoprune.space.tracing.program import plain_attention
from autoprune.testing.evaluators import EvaluatorContract, Make, tiny_bench
from autoprune.verdict.record import read_record


class TestEveryProxy(EvaluatorContract):
    @pytest.fixture(params=PROXIES.names())
    def make(self, request: pytest.FixtureRequest) -> Make:
        return lambda factory: make_evaluator("zero_cost", factory, {"proxy": request.param, "examples": 8})


def test_draws_are_averaged_and_inherited_weights_are_not_drawn_anew() -> None:
    factory = tiny_bench()
    widths = factory.space.uniform(0.5)

    def score(seed: int = 0, **settings: Any) -> float:
        return float(make_evaluator("zero_cost", factory, {"proxy": "snip", **settings}).evaluate(widths, seed=seed))

    assert score(draws=2) == pytest.approx((score(0) + score(1)) / 2)
    assert score(0) != score(1)
    assert score(0, weights="inherited") == score(1, weights="inherited")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"proxy": "nas"}, "unknown proxy 'nas'.*naswot"),
        ({"proxy": {"name": "zen", "settings": {"sise": 1}}}, "proxy 'zen' has no setting 'sise'.*size"),
        ({"weights": "new"}, "weights must be one of fresh, inherited, got 'new'"),
        ({"examples": 0}, "examples must be at least 1"),
        ({"draws": 0}, "draws must be at least 1"),
    ],
)
def test_wrong_settings_say_what_is_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, RegistryError), match=message):
        make_evaluator("zero_cost", tiny_bench(), settings)


def test_a_proxy_of_labels_needs_a_loss(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="the proxy 'snip' needs a loss, and the task has none; choose one of log_width"
    ):
        regression(tmp_path / "run", evaluator={"name": "zero_cost", "settings": {"proxy": "snip"}})


def test_a_search_by_a_proxy_says_that_its_scores_are_no_accuracies(tmp_path: Path) -> None:
    evaluator = {"name": "zero_cost", "settings": {"proxy": "nsc"}}
    result = autoprune.search(
        Convolutions(classes=4),
        pictures(2, 0)[0][0][None],
        constraints={"flops": "50%"},
        data=(pictures(96, 0), pictures(32, 1), pictures(32, 2)),
        trials=6,
        controller="random",
        evaluator=evaluator,
        training={"epochs": 1, "batch_size": 16},
        verdict={"seeds": 1, "protocols": ["fine_tune"], "fine_tune_epochs": 1, "random_candidates": 1},
        device="cpu",
        progress="silent",
        run_dir=tmp_path / "run",
    )
    record = read_record(result.directory)
    space, scored = record.space, [trial for trial in record.trials if trial.score is not None]
    expected = PROXIES.get("nsc")(space)([trial.widths for trial in scored])
    assert [trial.score for trial in scored] == pytest.approx(list(expected))
    assert all(0 <= final.score <= 100 for final in record.finals)
    facts = collect(record)
    assert any(
        "Scores of the search are another thing: zero-cost proxy, higher is better" in note for note in facts.notes
    )
    by_name = {row[0]: row for row in facts.arms.rows}
    assert by_name["unpruned"][2] == "–"
    assert "%" not in by_name["winner"][2]
    assert "%" in by_name["winner"][1]
    assert json.loads((result.directory / "result.json").read_text())["search_measure"]["name"] == "zero-cost proxy"
    assert "zero-cost proxy in the search" in (result.directory / "report.html").read_text()


class _Attention(nn.Module):
    """Drops in attention, between layers of an LSTM and by a function that asks for the flag of the whole network."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.5, batch_first=True)
        self.recurrent = nn.LSTM(16, 8, num_layers=2, dropout=0.5, batch_first=True)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        read = self.recurrent(self.encoder(self.first(x)))[0]
        logits: Tensor = self.last(F.dropout(read.mean(1), 0.5, training=self.training))
        return logits


def test_nothing_is_dropped_while_a_proxy_looks_and_norms_go_by_the_batch() -> None:
    torch.manual_seed(0)
    model, x = _Attention().train(), torch.randn(4, 5, 6)
    be_looked_at(model)
    with plain_attention():
        assert torch.equal(model(x), model(x))
        switched: list[str] = []
        with watching(frozenset({"relu"}), lambda name, given, outputs: switched.append(name)), torch.no_grad():
            model(x)
    assert switched, "no fast path hides the units"
    normed = nn.Sequential(nn.BatchNorm1d(6))
    be_looked_at(normed)
    assert normed(x[:, 0]).mean(0).abs().max() < 1e-6


def test_weights_that_trainings_leave_alone_count_like_others() -> None:
    factory = tiny_bench()
    widths, scores = factory.space.uniform(0.5), {}
    for name in ("synflow", "snip", "grad_norm", "grasp", "fisher"):
        scores[name] = float(make_evaluator("zero_cost", factory, {"proxy": name}).evaluate(widths, seed=0))
    next(factory.model.parameters()).requires_grad_(False)
    for name, score in scores.items():
        again = float(make_evaluator("zero_cost", factory, {"proxy": name}).evaluate(widths, seed=0))
        assert again == pytest.approx(score), name
