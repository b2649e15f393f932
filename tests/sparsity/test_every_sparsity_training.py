"""Every sparsity training keeps the contract."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any, final

import pytest
import torch
from safetensors.torch import load
from torch import nn

from autoprune.config.parts import NamedPart
from autoprune.config.training import Recipe
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError, EvaluationError
from autoprune.sparsity import SPARSITY
from autoprune.sparsity.base import SparsityTraining, make_sparsity
from autoprune.sparsity.training import SparsityPiece, sparsify
from autoprune.tasks.classification import ClassificationTask
from autoprune.testing.evaluators import tiny_bench, tiny_splits
from autoprune.testing.sparsity import SparsityContract

OTHERS: dict[str, dict[str, Any]] = {
    "autopruner": {"per": "group"},
    "implicit": {"optimizer": "adagrad"},
    "group_lasso": {"members": "written", "step": "gradient", "raised": 3.0},
    "soft_filter": {"by": "fpgm"},
}
"""A second way of a method."""

CASES = [NamedPart(name=name) for name in SPARSITY.names()]
CASES += [NamedPart(name=name, settings=settings) for name, settings in OTHERS.items()]


class TestEverySparsityTraining(SparsityContract):
    @pytest.fixture(params=CASES, ids=lambda part: part.label)
    def method(self, request: pytest.FixtureRequest) -> NamedPart:
        part: NamedPart = request.param
        return part


@pytest.mark.parametrize("name", SPARSITY.names())
def test_settings_out_of_range_are_refused_by_name(name: str) -> None:
    for setting in inspect.signature(SPARSITY.get(name)).parameters:
        for wrong in ("zzz", -1):
            with pytest.raises(ConfigError, match=rf"'{name}': {setting} must be"):
                make_sparsity(NamedPart(name=name, settings={setting: wrong}))


@final
class Scoring(SparsityTraining):
    """Gives what it is told."""

    def __init__(self, *, kind: str = "") -> None:
        self._kind = kind

    def scores(self, model: nn.Module) -> Any:
        number = self.subject.channels.number
        wrong = {"nan": torch.full((number,), torch.nan), "few": torch.ones(number - 1), "list": [1.0] * number}
        return wrong.get(self._kind, torch.ones(number))

    def block_scores(self, model: nn.Module) -> dict[int, float]:
        return {0: 1.0} if self._kind == "blocks" else {}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("nan", "not all finite"),
        ("few", r"of shape \(19,\)"),
        ("list", "gives list as scores"),
        ("blocks", r"gives \{0: 1.0\} as scores of blocks; .* which are \[\]"),
    ],
)
def test_scores_that_are_none_are_told_with_the_method(kind: str, told: str) -> None:
    bench = tiny_bench()
    target = BudgetedSpace(bench.space, {"flops": "50%"}).uniform()
    method = NamedPart(name=f"{__name__}:Scoring", settings={"kind": kind})
    with pytest.raises(EvaluationError, match=f"Scoring.*{told}"):
        sparsify(bench, SparsityPiece(method, 1, 0.01, 0, target))


@pytest.mark.parametrize("mixup", [0.0, 0.3])
@pytest.mark.parametrize("name", ["dcp", "sss", "autopruner"])
def test_what_the_network_gives_inside_is_seen_through_gates_and_in_mixed_batches(name: str, mixup: float) -> None:
    bench = tiny_bench()
    target = BudgetedSpace(bench.space, {"flops": "50%"}).uniform()
    found = []
    for weight in (0.5, 50.0):
        features = NamedPart(name="feature_distillation", settings={"at": ["features.2"], "weight": weight})
        recipe = Recipe(epochs=1, lr=0.05, batch_size=32, mixup=mixup, objective=features)
        factory = replace(bench, task=ClassificationTask(tiny_splits(), recipe, device=torch.device("cpu")))
        found.append(load(sparsify(factory, SparsityPiece(NamedPart(name=name), 1, 0.05, 0, target)).weights))
    assert any(not torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_shrinking_leaves_frozen_weights_as_they_are() -> None:
    bench = tiny_bench()
    recipe = Recipe(epochs=1, lr=0.05, batch_size=32, freeze=("features.0*",))
    factory = replace(bench, task=ClassificationTask(tiny_splits(), recipe, device=torch.device("cpu")))
    target, method = BudgetedSpace(bench.space, {"flops": "50%"}).uniform(), NamedPart(name="group_lasso")
    found = load(sparsify(factory, SparsityPiece(method, 1, 0.05, 0, target)).weights)
    before = bench.model.state_dict()
    assert torch.equal(found["features.0.weight"], before["features.0.weight"])
    assert not torch.equal(found["features.3.weight"], before["features.3.weight"])
