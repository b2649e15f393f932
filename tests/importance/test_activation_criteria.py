"""Criteria on activations against numpy on what hooks saw, in module form and in graph form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from read_networks import Reading, images, inputs_of, reading, scored
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.importance import recorders
from autoprune.importance.chip import chip
from autoprune.importance.entropy import entropy
from autoprune.importance.evidence import Calibration, GroupEvidence, Need
from autoprune.importance.gathering import gather
from autoprune.importance.hrank import hrank
from autoprune.importance.members import channel_scores
from autoprune.importance.recorders import Reservoir
from autoprune.space.groups import SearchSpace
from autoprune.space.tracing.trace import trace

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module", params=[False, True], ids=["module", "graph"])
def network(request: pytest.FixtureRequest) -> tuple[nn.Module, SearchSpace, Reading]:
    return reading(request.param)


def test_the_variance_is_that_of_what_all_readers_get(network: tuple[nn.Module, SearchSpace, Reading]) -> None:
    model, space, plain = network
    read = inputs_of(plain, ["inner", "grouped"], images())
    both = torch.cat([values.movedim(1, 0).flatten(1) for values in read.values()], dim=1)
    expected = both.var(dim=1, unbiased=False).numpy()
    assert scored(model, space, "activation_variance", "stem") == pytest.approx(expected, rel=1e-6)


def test_wanda_multiplies_each_weight_by_the_norm_of_its_input(network: tuple[nn.Module, SearchSpace, Reading]) -> None:
    model, space, plain = network
    read = inputs_of(plain, ["inner", "grouped", "apart", "wide", "head"], images())

    def norm(values: Tensor) -> Tensor:
        return values.square().mean(dim=(0, *range(2, values.ndim))).sqrt()

    stem = sum(
        plain.get_parameter(f"{name}.weight").abs().sum(dim=(0, 2, 3)) * norm(read[name])
        for name in ("inner", "grouped")
    )
    assert isinstance(stem, Tensor)
    assert scored(model, space, "wanda", "stem") == pytest.approx(stem.detach().numpy(), rel=1e-6)
    transposed = plain.wide.weight.abs().sum(dim=(1, 2, 3)) * norm(read["wide"])
    found = scored(model, space, "wanda", "apart")
    assert found == pytest.approx((transposed[:4] + transposed[4:]).detach().numpy(), rel=1e-6)
    by_input = torch.stack([plain.apart.weight[4 * g : 4 * g + 4].abs().sum(dim=(0, 2, 3)) for g in (0, 1)])
    grouped = (by_input.flatten() * norm(read["apart"])).detach()
    assert scored(model, space, "wanda", "grouped") == pytest.approx((grouped[:4] + grouped[4:]).numpy(), rel=1e-6)
    flat = (plain.head.weight.abs().sum(dim=0) * norm(read["head"])).reshape(5, 4).sum(dim=1)
    assert scored(model, space, "wanda", "wide") == pytest.approx(flat.detach().numpy(), rel=1e-6)


def test_entropy_is_that_of_a_histogram_of_pooled_maps(network: tuple[nn.Module, SearchSpace, Reading]) -> None:
    model, space, plain = network
    pooled = inputs_of(plain, ["back"], images())["back"].mean(dim=(2, 3)).float().numpy()
    expected = []
    for channel in pooled.T:
        counts, _ = np.histogram(channel, bins=10, range=(channel.min(), channel.max()))
        shares = counts[counts > 0] / counts.sum()
        expected.append(-(shares * np.log(shares)).sum())
    assert scored(model, space, "entropy", "inner", bins=10) == pytest.approx(np.array(expected), rel=1e-5)


def test_a_constant_channel_has_no_entropy_and_all_different_values_have_the_most() -> None:
    pooled = torch.stack([torch.full((50,), 3.0), torch.arange(50.0)])
    scores = entropy(GroupEvidence(2, (), (), pooled=pooled), RNG, bins=50)
    assert scores.tolist() == pytest.approx([0.0, np.log(50)])


def test_hrank_is_the_mean_rank_of_maps(network: tuple[nn.Module, SearchSpace, Reading]) -> None:
    model, space, plain = network
    maps = inputs_of(plain, ["back"], images())["back"].numpy()
    expected = np.linalg.matrix_rank(maps).mean(axis=0)
    assert scored(model, space, "hrank", "inner") == pytest.approx(expected)


def test_maps_of_one_row_are_taken_as_squares_where_they_can_be() -> None:
    maps = torch.randn(3, 4, 3, 3).double()
    maps[1] = 1.0
    flat = maps.reshape(3, 4, 9, 1)
    expected = np.linalg.matrix_rank(maps.numpy()).mean(axis=1)
    assert hrank(GroupEvidence(3, (), (), maps=(flat,)), RNG).numpy() == pytest.approx(expected)
    assert hrank(GroupEvidence(3, (), (), maps=(flat[:, :, :7],)), RNG).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("channels", "positions"), [(6, 20), (12, 5), (1, 4), (4, 1)])
def test_chip_is_the_change_of_the_nuclear_norm(channels: int, positions: int) -> None:
    maps = torch.randn(channels, 5, positions, 1, generator=torch.Generator().manual_seed(0)).double()
    if channels > 2:
        maps[2] = maps[0] + maps[1]
    expected = np.zeros(channels)
    for example in range(5):
        rows = maps[:, example, :, 0].numpy()
        for channel in range(channels):
            without = rows.copy()
            without[channel] = 0
            expected[channel] += np.linalg.norm(rows, "nuc") - np.linalg.norm(without, "nuc")
    found = chip(GroupEvidence(channels, (), (), maps=(maps,)), RNG)
    assert found.numpy() == pytest.approx(expected / 5, rel=1e-6, abs=1e-6)


def test_chip_looks_at_what_each_reader_gets(network: tuple[nn.Module, SearchSpace, Reading]) -> None:
    model, space, plain = network
    expected = np.zeros(6)
    for values in inputs_of(plain, ["inner", "grouped"], images()).values():
        for rows in values.flatten(2).numpy():
            whole = np.linalg.norm(rows, "nuc")
            expected += [whole - np.linalg.norm(np.delete(rows, c, axis=0), "nuc") for c in range(6)]
    assert scored(model, space, "chip", "stem", examples=64) == pytest.approx(expected / 21 / 2, rel=1e-5)


def test_a_reservoir_is_an_even_sample_and_forgets_batches_that_do_not_count() -> None:
    counts = np.zeros(40)
    for seed in range(500):
        reservoir, kept = Reservoir(8, seed=seed), dict[int, int]()
        for batch in range(10):
            for example, place in reservoir.begin(4):
                kept[place] = 4 * batch + example
            reservoir.commit()
        counts[list(kept.values())] += 1
        assert len(kept) == 8
    assert np.abs(counts / 500 - 8 / 40).max() < 4 * np.sqrt(0.2 * 0.8 / 500)
    one, other = Reservoir(3), Reservoir(3)
    for reservoir in (one, other):
        reservoir.begin(5)
        reservoir.commit()
    one.begin(9)  # never committed
    assert one.begin(5) == other.begin(5)


def test_few_maps_are_kept_where_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    model, space, plain = reading()
    monkeypatch.setattr(recorders, "SAMPLED_VALUES", 3000)
    needs: frozenset[Need] = frozenset({"maps"})
    gathered = gather(model, space, needs, Calibration([(batch, None) for batch in images()]), what="it")
    assert gathered is not None
    kept = gathered.maps["back.weight", 0]
    assert len(kept) == 2  # one example has 1,140 values
    seen = inputs_of(plain, ["back"], images())["back"]
    assert all(any(torch.allclose(one, other) for other in seen) for one in kept)


def test_heads_of_attention_are_seen_through_the_projection_of_their_outputs() -> None:
    """Fast paths and torch's own attention function would hide all of its products."""

    class Block(nn.Module):
        def __init__(self, same: bool) -> None:
            super().__init__()
            self.embed = nn.Linear(3, 8)
            self.attention = nn.MultiheadAttention(8, 4, batch_first=True)
            self.first, self.second, self.head = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 2)
            self.same = same

        def forward(self, x: Tensor) -> Tensor:
            x = self.embed(x)
            others = x if self.same else x.flip(1)
            x = x + self.attention(x, others, others, need_weights=False)[0]
            x = x + self.second(torch.relu(self.first(x)))
            return self.head(x.mean(dim=1))  # type: ignore[no-any-return]

    for same in (True, False):
        torch.manual_seed(0)
        model = Block(same).eval()
        space = trace(model, torch.randn(2, 5, 3)).space
        batches = [(torch.randn(6, 5, 3), None) for _ in range(2)]
        for criterion in ("activation_variance", "wanda", "hrank", "obs"):
            scores = channel_scores(model, space, criterion, calibration=Calibration(batches))
            assert len(scores) == len(space.groups) > 1
            assert all(np.isfinite(of_group).all() and of_group.max() > 0 for of_group in scores)


def test_settings_out_of_range_are_named() -> None:
    group = GroupEvidence(2, (), (), pooled=torch.ones(2, 3), maps=(torch.ones(2, 3, 2, 2),))
    with pytest.raises(ConfigError, match="bins must be at least 2, got 1"):
        entropy(group, RNG, bins=1)
    for criterion in (hrank, chip):
        with pytest.raises(ConfigError, match="examples must be at least 1, got 0"):
            criterion(group, RNG, examples=0)
