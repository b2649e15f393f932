"""Laws of every inheritance method, and of lists of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.config.job import SearchOptions
from autoprune.errors import ConfigError, RegistryError
from autoprune.importance.members import rank_channels
from autoprune.inherit import FINAL_DEFAULT, INHERITANCE
from autoprune.inherit.base import Chain, Inheritance, Statistics
from autoprune.inherit.bn_recalibration import recalibrate_batch_norm
from autoprune.registry import Part
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import Slicer
from autoprune.testing.inheritance import InheritanceContract, _inputs, _network


class TestEveryMethod(InheritanceContract):
    @pytest.fixture(params=INHERITANCE.names())
    def method(self, request: pytest.FixtureRequest) -> Inheritance:
        made: Inheritance = INHERITANCE.get(request.param)()
        return made


@pytest.mark.parametrize("baked", [False, True])
def test_a_cut_names_the_indices_of_every_axis_that_survived(baked: bool) -> None:
    dense, space = _network(baked=baked)
    cut = Slicer(dense, space, rank_channels(dense, space, "l2")).cut(space.uniform(0.5))
    full, left = dense.state_dict(), cut.network.state_dict()
    assert set(cut.kept) >= set(dict(dense.named_parameters()))
    shrunk = 0
    for name, kept in cut.kept.items():
        expected = full[name]
        for dim, indices in enumerate(kept):
            expected = expected if indices is None else expected.index_select(dim, indices)
        assert torch.equal(expected, left[name])
        shrunk += expected.shape != full[name].shape
    assert shrunk > 5
    assert all(
        index is None
        for kept in Slicer(dense, space, rank_channels(dense, space, "l2")).cut(space.full).kept.values()
        for index in kept
    )


class Added(Inheritance):
    """Adds to, then doubles, a bias: the order shows."""

    def __init__(self, *, times: float = 1.0) -> None:
        self.times = times

    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> None:
        with torch.no_grad():
            cut.network.get_parameter("head.bias").add_(1.0).mul_(self.times)


def test_a_list_of_methods_is_applied_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INHERITANCE._table, "added", Part(f"{__name__}:Added", "a test", "Here."))
    dense, space = _network(baked=False)
    bias = dense.get_parameter("head.bias").detach()
    traced = autoprune.trace(dense, torch.randn(1, 2, 6, 6))
    chosen = [{"name": "added", "settings": {"times": 3.0}}, "added"]
    network = traced.slice(dense, space.uniform(0.5), inherit=chosen, calibration=_inputs(1))
    assert torch.allclose(network.get_parameter("head.bias"), 3 * (bias + 1) + 1)


def test_python_slices_and_recalibrates_as_the_function_does() -> None:
    dense, space = _network(baked=False)
    traced = autoprune.trace(dense, torch.randn(1, 2, 6, 6))
    widths = space.uniform(0.5)
    network = traced.slice(dense, widths, criterion="apoz", inherit=["bn_recalibration"], calibration=_inputs(3))
    plain = traced.slice(dense, widths, criterion="apoz", inherit=[], calibration=_inputs(3))
    recalibrate_batch_norm(plain, _inputs(3), device=torch.device("cpu"))
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(ConfigError, match="inherit needs data"):
        traced.slice(dense, widths, inherit=["bn_recalibration"])


def test_slicing_does_by_default_what_a_search_exports_and_without_data_it_is_plain() -> None:
    dense, space = _network(baked=False)
    traced = autoprune.trace(dense, torch.randn(1, 2, 6, 6))
    asked = [
        traced.slice(dense, space.uniform(0.5), calibration=_inputs(3), **given)
        for given in ({}, {"inherit": FINAL_DEFAULT})
    ]
    assert all(map(torch.equal, *(network.state_dict().values() for network in asked)))
    plain = traced.slice(dense, space.uniform(0.5))
    cut = Slicer(dense, space, rank_channels(dense, space, "l2"))(space.uniform(0.5))
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in cut.state_dict().items())
    merged = traced.slice(dense, space.uniform(0.5), inherit=["merge"])  # needs none
    assert not torch.equal(merged.state_dict()["inner.weight"], plain.state_dict()["inner.weight"])


def test_what_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(RegistryError, match="unknown inheritance 'bn_recalibratoin'"):
        Chain(["bn_recalibratoin"])
    with pytest.raises(ConfigError, match="has no setting 'batch'"):
        Chain([{"name": "bn_recalibration", "settings": {"batch": 3}}])
    with pytest.raises(ConfigError, match="batches must be at least 0"):
        Chain([{"name": "bn_recalibration", "settings": {"batches": -1}}])


def test_settings_of_the_list_win_over_those_of_the_evaluator() -> None:
    asked: list[int] = []

    def inputs(batches: int) -> list[Tensor]:
        asked.append(batches)
        return []

    defaults: dict[str, dict[str, object]] = {"bn_recalibration": {"batches": 7}}
    for chosen in ("bn_recalibration", {"name": "bn_recalibration", "settings": {"batches": 2}}):
        Chain([chosen], defaults).prepare(Statistics(inputs, torch.device("cpu")))
    assert asked == [7, 2]


def test_a_job_that_does_not_name_inheritance_is_written_as_before() -> None:
    assert "inherit" not in SearchOptions().model_dump(mode="json")
    chosen = SearchOptions.model_validate({"inherit": [{"name": "bn_recalibration", "settings": {"batches": 3}}]})
    assert SearchOptions.model_validate(chosen.model_dump(mode="json")) == chosen


def test_calibration_batches_may_be_named_inputs() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.head = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            out: Tensor = self.head(torch.relu(self.norm(self.first(left + right))))
            return out

    model = Named().eval()
    batch = {"left": torch.randn(16, 4), "right": torch.randn(16, 4)}
    space = autoprune.trace(model, batch)
    chosen = ["reuse", "mean_fold", "bn_recalibration"]
    network = space.slice(model, space.uniform(0.5), inherit=chosen, calibration=[batch]).eval()
    plain = space.slice(model, space.uniform(0.5)).eval()
    with torch.no_grad():
        errors = [(made(**batch) - model(**batch)).square().mean() for made in (network, plain)]
    assert torch.equal(network.state_dict()["norm.num_batches_tracked"], torch.tensor(1))
    assert all(error.isfinite() for error in errors)
