"""Criteria given as Python functions, of a module or made on the spot."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny import X, perceptron, regression
from torch import Tensor

import autoprune
from autoprune.errors import ConfigError, EvaluationError, RunError
from autoprune.importance.evidence import GroupEvidence, criterion
from autoprune.importance.given import named_criterion
from autoprune.importance.l1 import l1


def smallest_first(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """The opposite of l1."""
    scores: Tensor = l1(evidence, rng)
    return scores.max() - scores


class Weighted:
    """A criterion with a state of its own."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
        scores: Tensor = l1(evidence, rng)
        return self.factor * scores


def test_a_function_of_a_module_is_named_by_its_place() -> None:
    assert named_criterion(l1) == "autoprune.importance.l1:l1"
    assert named_criterion({"name": l1, "settings": {"reduction": "max"}}) == {
        "name": "autoprune.importance.l1:l1",
        "settings": {"reduction": "max"},
    }
    for plain in ("l2", {"name": "lamp"}):
        assert named_criterion(plain) == plain


def test_one_that_no_module_has_is_named_by_what_it_does() -> None:
    made = [lambda evidence, rng, k=k: k * l1(evidence, rng) for k in (1, 1, 2)]
    first, same, other = map(named_criterion, made)
    assert first == same != other
    assert named_criterion(Weighted(1.0)) != named_criterion(Weighted(2.0))
    assert "Weighted_" in named_criterion(Weighted(1.0))
    assert named_criterion(partial(smallest_first)).startswith("autoprune.importance.given:partial_")


@pytest.mark.parametrize("how", ["function", "object", "lambda"])
def test_slice_keeps_the_channels_that_a_function_ranks_first(how: str) -> None:
    model = perceptron()
    space = autoprune.trace(model, X[:1], verify=False)
    given: dict[str, Any] = {
        "function": smallest_first,
        "object": Weighted(-1.0),
        "lambda": lambda evidence, rng: -evidence.filters[0].flatten(1).abs().sum(1),
    }
    chosen: Any = given[how]
    if how == "object":
        chosen = lambda evidence, rng: Weighted(-1.0)(evidence, rng) + 100.0  # noqa: E731
    cut = space.slice(model, (8, 6), criterion=chosen)
    kept = {tuple(row.tolist()) for row in cut.first.weight}  # type: ignore[union-attr]
    with torch.no_grad():
        importance = model.first.weight.abs().sum(1)
    if how != "lambda":
        with_bias = autoprune.trace(model, X[:1], verify=False).slice(model, (8, 6), criterion="l1")
        strongest = {tuple(row.tolist()) for row in with_bias.first.weight}  # type: ignore[union-attr]
        assert kept & strongest == set()
    else:
        weakest = importance.argsort()[:8]
        assert kept == {tuple(model.first.weight[i].tolist()) for i in weakest}


def test_a_search_by_a_function_goes_on_with_the_same_one_only(tmp_path: Path) -> None:
    sign = -1.0

    def ranked(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
        return sign * l1(evidence, rng) + 100.0

    options: dict[str, Any] = {"verdict": {"seeds": 0}, "train_func": None}
    result = regression(tmp_path / "run", criterion=ranked, **options)
    named = yaml.safe_load((tmp_path / "run" / "job.yaml").read_text())["search"]["criterion"]
    assert named == named_criterion(ranked)
    (tmp_path / "run" / "result.json").unlink()
    again = regression(tmp_path / "run", criterion=ranked, resume=True, **options)
    assert again.widths == result.widths
    sign = 1.0
    with pytest.raises(RunError, match="job of the run and of this call differ"):
        regression(tmp_path / "run", criterion=ranked, resume=True, **options)


def test_evidence_that_a_function_asks_for_is_gathered(tmp_path: Path) -> None:
    seen = []

    @criterion("activations")
    def busy(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
        seen.append(evidence.activations)
        return l1(evidence, rng)

    model = perceptron()
    space = autoprune.trace(model, X[:1], verify=False)
    space.slice(model, (8, 6), criterion=busy, calibration=X)
    assert seen
    assert all(found is not None for found in seen)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        (Weighted, ConfigError, "criterion is the class Weighted; give a function"),
        (lambda evidence: 1, ConfigError, "fails"),
        (lambda evidence, rng: torch.ones(3), EvaluationError, "must give 16 finite numbers"),
        (lambda evidence, rng: l1(evidence, rng) * float("nan"), EvaluationError, "finite numbers"),
        (lambda evidence, rng: None, EvaluationError, "a tensor of 16 real numbers for group .*, got NoneType"),
        (lambda evidence, rng: [1.0] * 16, EvaluationError, "a tensor of 16 real numbers for group .*, got list"),
        (lambda evidence, rng: l1(evidence, rng) * 1j, EvaluationError, "real numbers for group .*, got torch.complex"),
        (7, ConfigError, "criterion: must hold keys"),
    ],
)
def test_what_is_no_criterion_is_one_clear_error_before_anything_is_written(
    given: Any, kind: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        regression(tmp_path / "run", criterion=given)
    assert not (tmp_path / "run").exists()
