"""Whole runs of networks with several inputs: recalibration, evidence and trainings take tuples and mappings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.inherit.bn_recalibration import recalibrate_batch_norm

X, Y = (torch.randn(48, 6, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
FORMS: dict[str, Any] = {"mapping": {"left": X, "right": Y}, "tuple": (X, Y), "list": [X, Y]}


class Two(nn.Module):
    """Two inputs, a batch norm, an output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 16), nn.BatchNorm1d(16)
        self.second, self.head = nn.Linear(16, 12), nn.Linear(12, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.second(torch.relu(self.norm(self.first(left - 2 * right))))))
        return out


def model() -> Two:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Two().eval()


def called(network: nn.Module, inputs: Any) -> Tensor:
    out: Tensor = network(**inputs) if isinstance(inputs, dict) else network(*inputs)
    return out


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("exact", [False, True])
def test_recalibration_takes_inputs_of_any_nesting(form: str, exact: bool) -> None:
    network, given = model(), FORMS[form]
    recalibrate_batch_norm(network, [given], device=torch.device("cpu"), exact=exact)
    before = model().first(X - 2 * Y)
    assert torch.allclose(network.norm.running_mean, before.mean(0), atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(network.norm.running_var, before.var(0), rtol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["mapping", "tuple"])
def test_a_search_recalibrates_on_them(form: str, tmp_path: Path) -> None:
    given = FORMS[form]
    base = model()

    def score(network: nn.Module) -> float:
        with torch.no_grad():
            return -float((called(network, given) - called(base, given)).square().mean())

    example = {k: v[:1] for k, v in given.items()} if isinstance(given, dict) else tuple(v[:1] for v in given)
    data = [given if isinstance(given, dict) else (given, torch.zeros(48))]
    inherit = ["bn_recalibration"]
    result = autoprune.search(
        base, example, constraints={"flops": "60%"}, score_func=score, data=data, inherit=inherit, criterion="apoz",
        trials=2, controller="random", verdict={"seeds": 0}, progress="silent", device="cpu", run_dir=tmp_path / "run",
    )  # fmt: skip
    seen: list[Tensor] = []
    result.model.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]
    with torch.no_grad():
        called(result.model.eval(), given)
    assert torch.allclose(result.model.norm.running_mean, seen[0].mean(0), atol=1e-5)  # type: ignore[union-attr, arg-type]


def test_one_batch_of_keyword_inputs_calibrates_a_slice() -> None:
    space = autoprune.trace(model(), FORMS["mapping"])
    one, other = (
        space.slice(model(), space.uniform(0.5), criterion="apoz", calibration=data)
        for data in (FORMS["mapping"], [FORMS["mapping"]])
    )
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
