"""Criteria on gates against networks whose reading weights are scaled, cut networks and brute force."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gated_networks import batches, calibration, gate_slopes, gated, group_of, losses, residual
from torch import Tensor, nn

import autoprune
from autoprune.errors import ConfigError, EvaluationError
from autoprune.importance.collaborative import removal_order
from autoprune.importance.evidence import Calibration
from autoprune.importance.members import channel_scores
from autoprune.importance.network import NetworkEvidence
from autoprune.space.cutting.slicing import slice_model
from autoprune.space.groups import FloatArray, SearchSpace
from autoprune.testing.network_criteria import example_batches, example_network


@pytest.fixture(scope="module", params=["module", "graph"])
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, SearchSpace]:
    return residual(baked=request.param == "graph")


def scored(network: tuple[nn.Module, SearchSpace], criterion: str, name: str, **settings: Any) -> FloatArray:
    model, space = network
    given = calibration([*batches(), *batches(1, size=3)])
    scores = channel_scores(model, space, {"name": criterion, "settings": settings}, calibration=given)
    return scores[group_of(space, name)]


def loss(model: nn.Module) -> float:
    return float(losses(model, [*batches(), *batches(1, size=3)]).mean())


NAMES = ["stem", "inner"]


@pytest.mark.parametrize("name", NAMES)
def test_ablation_is_the_change_of_the_loss_without_the_channel(
    network: tuple[nn.Module, SearchSpace], name: str
) -> None:
    """In batches of different sizes, of which the small ones are repeated."""
    model, _ = network
    changes = [loss(gated(model, name, {c: 0.0})) - loss(model) for c in range(len(scored(network, "ablation", name)))]
    assert scored(network, "ablation", name) == pytest.approx(np.abs(changes), rel=1e-9)


def test_signed_ablation_tells_what_helps_from_what_harms(network: tuple[nn.Module, SearchSpace]) -> None:
    model, space = network
    widths = {name: space.groups[group_of(space, name)].width for name in NAMES}
    changes = {n: [loss(gated(model, n, {c: 0.0})) - loss(model) for c in range(widths[n])] for n in NAMES}
    least = min(min(found) for found in changes.values())
    assert least < 0
    for name in NAMES:
        assert scored(network, "ablation", name, signed=True) == pytest.approx(
            np.array(changes[name]) - least, rel=1e-8
        )


def test_ablation_is_what_a_cut_network_loses() -> None:
    model, space = example_network()
    given = Calibration(example_batches(), F.cross_entropy)
    scores = channel_scores(model, space, "ablation", calibration=given)
    full = tuple(group.width for group in space.groups)
    whole = float(losses(model, example_batches()).mean())
    for group, width in enumerate(full):
        for channel in range(width):
            ranking = [np.arange(n) for n in full]
            ranking[group] = np.array([width - 1 if n == channel else n - (n > channel) for n in range(width)])
            widths = tuple(n - (g == group) for g, n in enumerate(full))
            cut = slice_model(model, space, widths, tuple(ranking))
            change = float(losses(cut, example_batches()).mean()) - whole
            assert scores[group][channel] == pytest.approx(abs(change), rel=1e-8, abs=1e-12)


def test_examples_bound_what_is_looked_at(network: tuple[nn.Module, SearchSpace]) -> None:
    model, space = network
    chosen = {"name": "ablation", "settings": {"examples": 3}}
    few = channel_scores(model, space, chosen, calibration=calibration())
    first = [(x[:3], y[:3]) for x, y in batches()[:1]]
    whole = channel_scores(model, space, "ablation", calibration=calibration(first))
    assert all(np.allclose(a, b, rtol=1e-9, atol=0) for a, b in zip(few, whole, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_sensitivity_is_how_far_the_outputs_move(network: tuple[nn.Module, SearchSpace], name: str) -> None:
    model, _ = network
    inputs = torch.cat([x for x, _ in [*batches(), *batches(1, size=3)]])
    for perturbation in (1.0, 0.1, -0.5):
        found = scored(network, "sensitivity", name, perturbation=perturbation)
        for channel, score in enumerate(found):
            with torch.no_grad():
                moved = gated(model, name, {channel: 1 - perturbation})(inputs) - model(inputs)
            assert score == pytest.approx(float(moved.square().sum(1).mean()) / perturbation**2, rel=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_flips_are_the_share_of_other_predictions(network: tuple[nn.Module, SearchSpace], name: str) -> None:
    model, _ = network
    inputs = torch.cat([x for x, _ in [*batches(), *batches(1, size=3)]])
    found = scored(network, "sensitivity", name, counts="flips", perturbation=4.0)
    with torch.no_grad():
        plain = model(inputs).argmax(1)
        expected = [
            float((gated(model, name, {c: -3.0})(inputs).argmax(1) != plain).double().mean()) for c in range(len(found))
        ]
    assert found == pytest.approx(expected)


def test_flips_of_outputs_without_classes_are_refused() -> None:
    torch.manual_seed(0)

    class Flat(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).flatten()  # type: ignore[no-any-return]

    model = Flat(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).eval()
    space = autoprune.trace(model, torch.randn(2, 3)).search_space
    chosen = {"name": "sensitivity", "settings": {"counts": "flips"}}
    with pytest.raises(ConfigError, match="set counts to 'change'"):
        channel_scores(model, space, chosen, calibration=Calibration([(torch.randn(4, 3), None)]))


class _Mixing(nn.Module):
    """Its outputs depend on the whole batch, and one of them is no row for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.first(x))
        y = self.head(x)
        return y - y.mean(0, keepdim=True) * len(x), y.sum()


def test_networks_that_mix_examples_are_run_channel_by_channel() -> None:
    torch.manual_seed(0)
    model = _Mixing().eval()
    space = autoprune.trace(model, torch.randn(2, 3)).search_space
    x, y = torch.randn(5, 3), torch.randint(3, (5,))
    given = Calibration([(x, y)], lambda outputs, targets: F.cross_entropy(outputs[0], targets))
    scores = channel_scores(model, space, "ablation", calibration=given)[0]
    expected = []
    for channel in range(4):
        with torch.no_grad():
            weight = model.head.weight.clone()
            whole = F.cross_entropy(model(x)[0], y)
            model.head.weight[:, channel] = 0
            expected.append(float((F.cross_entropy(model(x)[0], y) - whole).abs()))
            model.head.weight.copy_(weight)
    assert scores == pytest.approx(expected, rel=1e-4)


def test_several_rows_of_gates_share_a_pass_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, space = residual()
    passes, run = [], NetworkEvidence.run

    def counted(self: NetworkEvidence, batch: Any, *args: Any, **kwargs: Any) -> Any:
        passes.append(batch.number)
        return run(self, batch, *args, **kwargs)

    monkeypatch.setattr(NetworkEvidence, "run", counted)
    together = channel_scores(model, space, "ablation", calibration=calibration())
    few, number = len(passes), sum(group.width for group in space.groups)
    monkeypatch.setattr("autoprune.importance.network.PER_PASS", 1)
    passes.clear()
    apart = channel_scores(model, space, "ablation", calibration=calibration())
    assert len(passes) >= 2 * number > 2 * few
    assert all(np.allclose(a, b, rtol=1e-9, atol=1e-14) for a, b in zip(together, apart, strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("candidates", [None, 100])
def test_greedy_forward_adds_what_lowers_the_loss_most(
    network: tuple[nn.Module, SearchSpace], name: str, candidates: int | None
) -> None:
    model, _ = network
    found = scored(network, "greedy_forward", name, candidates=candidates)
    width = len(found)
    order: list[int] = []
    reached = [loss(gated(model, name, dict.fromkeys(range(width), 0.0)))]
    while len(order) < width:
        tried = {
            c: loss(gated(model, name, {k: 0.0 for k in range(width) if k not in (*order, c)}))
            for c in range(width)
            if c not in order
        }
        best = min(tried, key=lambda c: tried[c])
        order.append(best)
        reached.append(tried[best])
    assert np.argsort(-found).tolist() == order
    lowest = np.minimum.accumulate(reached)
    assert found[order] == pytest.approx(lowest[:-1] - lowest[-1], abs=1e-8)


def test_greedy_forward_tries_the_candidates_of_steepest_slope() -> None:
    """With one candidate each step adds the channel of the most negative slope of its gate, by finite differences."""
    model, space = residual()
    name, width = "inner", 5
    found = channel_scores(
        model, space, {"name": "greedy_forward", "settings": {"candidates": 1}}, calibration=calibration()
    )[group_of(space, name)]
    order: list[int] = []
    while len(order) < width:
        closed = {k: 0.0 for k in range(width) if k not in order}
        step = 1e-6
        slopes = {
            c: float(
                (
                    losses(gated(model, name, closed | {c: step})) - losses(gated(model, name, closed | {c: -step}))
                ).mean()
            )
            for c in closed
        }
        order.append(min(slopes, key=lambda c: slopes[c]))
    assert np.argsort(-found).tolist() == order


@pytest.mark.parametrize("name", NAMES)
def test_collaborative_removes_by_the_products_of_gate_slopes(
    network: tuple[nn.Module, SearchSpace], name: str
) -> None:
    """Slopes by finite differences, example by example; each step by evaluating the quadratic form of every choice."""
    model, space = network
    chosen = {"name": "collaborative", "settings": {}}
    found = channel_scores(model, space, chosen, calibration=calibration())[group_of(space, name)]
    slopes = gate_slopes(model, name, len(found)).numpy()
    pairs = sum(np.outer(g, g) for g in slopes) / len(slopes)

    def rise(removed: tuple[int, ...]) -> float:
        return float(sum(pairs[i, j] for i in removed for j in removed)) / 2

    removed: tuple[int, ...] = ()
    rises = []
    while len(removed) < len(found):
        left = [c for c in range(len(found)) if c not in removed]
        removed = (*removed, min(left, key=lambda c: rise((*removed, c))))
        rises.append(rise(removed))
    assert np.argsort(found).tolist() == list(removed)
    assert found[list(removed)] == pytest.approx(np.maximum.accumulate(rises), rel=1e-4)


def test_the_greedy_programme_is_near_the_best_of_all_subsets() -> None:
    """Measured over 50 random programmes of eight channels; the first removal is the best one by construction."""
    generator, excess = np.random.default_rng(0), []
    for _ in range(50):
        slopes = generator.normal(size=(30, 8)) * generator.uniform(0.2, 2, size=8)
        pairs = slopes.T @ slopes / 30
        order, rises = removal_order(torch.from_numpy(pairs))
        assert sorted(order.tolist()) == list(range(8))
        for number in range(1, 8):
            best = min(pairs[np.ix_(s, s)].sum() / 2 for s in map(list, itertools.combinations(range(8), number)))
            excess.append(float(rises[number - 1]) / best)
            assert float(rises[number - 1]) >= best - 1e-12
        assert excess[-7] == pytest.approx(1)
    assert np.median(excess) < 1.02
    assert max(excess) < 1.6


def test_collaborative_counts_removals_together_where_fisher_does_not() -> None:
    """Two channels that do the same and one that does as much as a little more than either alone."""
    slopes = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.5], [0.0, 0.0, -1.5]], dtype=torch.float64)
    pairs = slopes.T @ slopes / 4
    order, rises = removal_order(pairs)
    assert pairs.diagonal().argsort().tolist()[:2] == [0, 1]
    assert order.tolist() == [0, 2, 1]
    assert rises.tolist() == pytest.approx([0.25, 0.25 + 1.125 / 2, 1.0 + 1.125 / 2])


class _Hidden(nn.Module):
    """A linear layer whose weight is used through einsum, which is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.weight = nn.Linear(3, 4), nn.Parameter(torch.randn(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("ni,oi->no", torch.relu(self.first(x)), self.weight)


@pytest.mark.parametrize("criterion", ["ablation", "sensitivity", "collaborative", "greedy_forward", "dcp"])
def test_channels_that_cannot_be_gated_are_named(criterion: str) -> None:
    torch.manual_seed(0)
    model = _Hidden().eval()
    space = autoprune.trace(model, torch.randn(2, 3)).search_space
    given = Calibration([(torch.randn(4, 3), torch.randint(2, (4,)))], F.cross_entropy)
    with pytest.raises(EvaluationError, match=r"gates channels, and no .* reads those of group 'first'.* exclude"):
        channel_scores(model, space, criterion, calibration=given)


@pytest.mark.parametrize(
    ("criterion", "settings", "message"),
    [
        ("ablation", {"examples": -1}, "examples must be at least 1, or null for all, got -1"),
        ("sensitivity", {"perturbation": 0.0}, "perturbation must be a number other than 0"),
        ("sensitivity", {"counts": "flip"}, "counts must be one of change, flips, got 'flip'. Did you mean 'flips'"),
        ("greedy_forward", {"candidates": 0}, "candidates must be at least 1, or null for all, got 0"),
        ("dcp", {"rounds": 0}, "rounds must be at least 1"),
        ("taylor_gate", {"per": "sample"}, "per must be one of batch, example, got 'sample'"),
    ],
)
def test_settings_out_of_range_are_named(criterion: str, settings: dict[str, Any], message: str) -> None:
    model, space = residual()
    with pytest.raises(ConfigError, match=message):
        channel_scores(model, space, {"name": criterion, "settings": settings}, calibration=calibration())
