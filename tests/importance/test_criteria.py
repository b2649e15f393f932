from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.errors import EvaluationError, RegistryError, SpaceError
from autoprune.importance import CRITERIA
from autoprune.importance.evidence import DATA, NETWORK, needs_of
from autoprune.importance.members import (
    Criterion,
    channel_scores,
    group_tensors,
    rank_channels,
    ranking_of,
    unit_scores,
)
from autoprune.space.groups import SearchSpace
from autoprune.space.options.ties import tie
from autoprune.testing.criteria import CriterionContract
from autoprune.zoo import build_model


def is_blind(name: str) -> bool:
    return bool(getattr(CRITERIA.get(name), "blind", False))


class TestEveryCriterion(CriterionContract):
    @pytest.fixture(params=[n for n in CRITERIA.names() if not (is_blind(n) or needs_of(CRITERIA.get(n)) & NETWORK)])
    def criterion(self, request: pytest.FixtureRequest) -> Criterion:
        found: Criterion = CRITERIA.get(request.param)
        return found


class TestControls(CriterionContract):
    reads_weights = False

    @pytest.fixture(params=["random", "first_k"])
    def criterion(self, request: pytest.FixtureRequest) -> Criterion:
        found: Criterion = CRITERIA.get(request.param)
        return found


@pytest.fixture(scope="module")
def resnet() -> tuple[nn.Module, SearchSpace]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model("resnet20", {"width": 0.5})
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.weight.normal_()
        return model, autoprune.trace(model, torch.randn(1, 3, 16, 16)).search_space


def index_of(space: SearchSpace, name: str) -> int:
    return [group.name for group in space.groups].index(name)


def weights(model: nn.Module, *names: str) -> list[Tensor]:
    parameters = dict(model.named_parameters())
    return [parameters[f"{name}.weight"].detach() for name in names]


RESIDUAL = ["stages.stage2.0.conv2", "stages.stage2.1.conv2", "stages.stage2.2.conv2", "stages.stage2.0.shortcut.0"]
NORMS = ["stages.stage2.0.bn2", "stages.stage2.1.bn2", "stages.stage2.2.bn2", "stages.stage2.0.shortcut.1"]


def test_residual_channels_are_scored_over_every_layer_that_writes_them(resnet: tuple[nn.Module, SearchSpace]) -> None:
    model, space = resnet
    index = index_of(space, RESIDUAL[0])
    filters, scales = weights(model, *RESIDUAL), weights(model, *NORMS)
    by_hand = {
        "l1": sum(w.abs().sum((1, 2, 3)) for w in filters),
        "l2": torch.sqrt(sum(w.square().sum((1, 2, 3)) for w in filters)),  # type: ignore[arg-type]
        "bn_scale": sum(w.abs() for w in scales),
    }
    for name, expected in by_hand.items():
        assert isinstance(expected, Tensor)
        assert channel_scores(model, space, name)[index] == pytest.approx(expected.numpy(), rel=1e-5)


def test_inner_channels_are_scored_over_their_own_filters_only(resnet: tuple[nn.Module, SearchSpace]) -> None:
    model, space = resnet
    (weight,) = weights(model, "stages.stage1.1.conv1")
    scores = channel_scores(model, space, "l1")[index_of(space, "stages.stage1.1.conv1")]
    assert scores == pytest.approx(weight.abs().sum((1, 2, 3)).numpy(), rel=1e-5)


def test_a_layer_that_reads_and_writes_the_same_channels_is_scored_by_what_it_writes() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 9, bias=False), nn.Linear(9, 9, bias=False)
            self.head = nn.Linear(9, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.head(y + self.second(y))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model = Block()
    space = autoprune.trace(model, torch.randn(1, 5)).search_space
    expected = sum(layer.weight.detach().abs().sum(1) for layer in (model.first, model.second))
    assert isinstance(expected, Tensor)
    assert channel_scores(model, space, "l1")[0] == pytest.approx(expected.numpy(), rel=1e-5)


def test_a_channel_with_several_rows_owns_all_of_them() -> None:
    """A grouped convolution cuts position j of every group together."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, groups=1), nn.Conv2d(8, 8, 1, groups=2), nn.Flatten(), nn.Linear(128, 3))
    space = autoprune.trace(model, torch.randn(1, 3, 6, 6)).search_space
    layer = model[1]
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    expected = layer.weight.detach().abs().sum((1, 2, 3)) + layer.bias.detach().abs()
    scores = channel_scores(model, space, "l1")[index_of(space, "1")]
    assert scores == pytest.approx((expected[:4] + expected[4:]).numpy(), rel=1e-5)


def test_without_batch_norms_their_scale_falls_back_to_the_group_norm() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 2))
    space = autoprune.trace(model, torch.randn(1, 5)).search_space
    assert np.array_equal(*(channel_scores(model, space, name)[0] for name in ("bn_scale", "l2")))


def test_channels_that_only_a_tied_weight_writes_are_scored_by_it() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.last = nn.Embedding(7, 6), nn.Linear(6, 7, bias=False)
            self.last.weight = self.table.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.table(x))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model = Tied()
    space = autoprune.trace(model, torch.tensor([[1, 4]])).search_space
    expected = model.table.weight.detach().abs().sum(0)
    assert channel_scores(model, space, "l1")[0] == pytest.approx(expected.numpy(), rel=1e-5)


def test_every_group_of_every_network_owns_filters(resnet: tuple[nn.Module, SearchSpace]) -> None:
    model, space = resnet
    for index, group in enumerate(space.groups):
        tensors = group_tensors(model, space, index)
        assert tensors.filters
        assert all(rows.shape[0] == group.width for rows in (*tensors.filters, *tensors.norm_scales))


def test_random_order_follows_its_seed_and_no_other_criterion_does(resnet: tuple[nn.Module, SearchSpace]) -> None:
    model, space = resnet
    for name in (name for name in CRITERIA.names() if not needs_of(CRITERIA.get(name)) & DATA):
        one, same, other = (np.concatenate(channel_scores(model, space, name, seed=seed)) for seed in (1, 1, 2))
        assert np.array_equal(one, same)
        assert np.array_equal(one, other) == (name != "random")


def test_ranks_sort_by_importance_and_ties_keep_their_order() -> None:
    _, space, _ = tied_network()
    _, _, ranking = ranking_of(space, [np.zeros(6), np.zeros(9), np.array([0.5, 3.0, 0.5, 0.0])])
    assert ranking.tolist() == [1, 0, 2, 3]


def tied_network() -> tuple[nn.Module, SearchSpace, SearchSpace]:
    """A perceptron and its space, without and with its first two layers tied."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 4), nn.Linear(4, 2))
    apart = autoprune.trace(model, torch.randn(1, 5), verify=False).search_space
    return model, apart, tie(apart, [(0, 1)])


@pytest.mark.parametrize("criterion", ["l1", "l2", "bn_scale"])
def test_tied_sets_are_scored_and_ranked_by_themselves(criterion: str) -> None:
    model, apart, tied = tied_network()
    first, second, third = channel_scores(model, apart, criterion)
    scores = channel_scores(model, tied, criterion)
    assert [len(s) for s in scores] == [group.slots for group in tied.groups] == [15, 4]
    assert scores[0] == pytest.approx(np.r_[first, second])
    assert scores[1] == pytest.approx(third)
    of_first, of_second, of_third = ranking_of(apart, [first, second, third])
    ranking = rank_channels(model, tied, criterion)
    assert ranking[0].tolist() == [*(of_first // 2), *(of_second // 3)]
    assert ranking[1].tolist() == of_third.tolist()


def test_a_unit_is_worth_the_channels_that_come_with_it() -> None:
    _, apart, tied = tied_network()
    first, second, third = np.arange(6.0), np.arange(9.0)[::-1], np.arange(4.0)
    units, untied = unit_scores(tied, [np.r_[first, second], third])
    assert untied is third
    assert units.tolist() == [5 + 4 + 8 + 7 + 6, 3 + 2 + 5 + 4 + 3, 1 + 0 + 2 + 1 + 0]
    assert [s.tolist() for s in unit_scores(apart, [first, second, third])] == [[*first], [*second], [*third]]


def test_unknown_criteria_other_networks_and_broken_weights_are_refused(resnet: tuple[nn.Module, SearchSpace]) -> None:
    model, space = resnet
    with pytest.raises(RegistryError, match=r"unknown criterion 'l11'.*Did you mean 'l1'\?"):
        rank_channels(model, space, "l11")
    with pytest.raises(SpaceError, match="trace this one anew"):
        rank_channels(build_model("resnet20"), space, "l1")
    broken = build_model("resnet20", {"width": 0.5})
    with torch.no_grad():
        dict(broken.named_parameters())["conv.weight"][0] = torch.nan
    with pytest.raises(EvaluationError, match="must give 8 finite numbers for group 'conv'"):
        rank_channels(broken, space, "l1")
