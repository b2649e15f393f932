import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.data.arrays import Examples, channel_statistics, stratified_order
from autoprune.errors import ConfigError, DataError


@given(st.lists(st.integers(0, 4), min_size=1, max_size=120), st.integers(0, 99), st.data())
@settings(max_examples=60, deadline=None)
def test_every_stretch_has_the_class_proportions_of_the_whole(labels: list[int], seed: int, data: st.DataObject):
    values = np.array(labels)
    order = stratified_order(values, seed=seed)
    assert sorted(order) == list(range(len(values)))
    stop = data.draw(st.integers(1, len(values)))
    start = data.draw(st.integers(0, stop - 1))
    stretch = values[order][start:stop]
    classes = len(set(labels))
    for label in set(labels):
        share = (values == label).mean()
        # up to a place t there are t * n_c of class c to within a half; so at each of the two ends
        assert abs((stretch == label).sum() - len(stretch) * share) <= 1 + classes * share + 1e-9


def test_a_rare_class_is_spread_evenly():
    labels = np.array([0] * 900 + [1] * 100)
    ordered = labels[stratified_order(labels, seed=1)]
    assert all(abs(ordered[start : start + 100].sum() - 10) <= 1 for start in range(0, 901, 50))


def test_equal_classes_come_out_equal():
    labels = np.repeat(np.arange(10), 60)
    counts = np.bincount(labels[stratified_order(labels, seed=1)][:200])
    assert counts.tolist() == [20] * 10


def test_the_order_is_random_and_fixed_by_its_seed():
    labels = np.repeat(np.arange(3), 20)
    first = stratified_order(labels, seed=1)
    assert np.array_equal(first, stratified_order(labels, seed=1))
    assert not np.array_equal(first, stratified_order(labels, seed=2))
    assert not np.array_equal(np.sort(first[:30]), np.sort(stratified_order(labels, seed=2)[:30]))


def examples(n: int) -> Examples:
    return Examples(np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1), np.arange(n) % 3)


def test_holding_out_divides_the_examples():
    rest, held = examples(30).hold_out(9)
    assert (len(rest), len(held)) == (21, 9)
    assert sorted([*rest.images.ravel(), *held.images.ravel()]) == list(range(30))
    assert np.bincount(held.labels).tolist() == [3, 3, 3]
    assert all(image % 3 == label for image, label in zip(held.images.ravel(), held.labels, strict=True))


@pytest.mark.parametrize("n", [0, 30, 31])
def test_holding_out_nothing_or_everything_is_refused(n: int):
    with pytest.raises(DataError, match="1 to 29"):
        examples(30).hold_out(n)


def test_a_limit_below_one_is_refused():
    with pytest.raises(ConfigError, match="got 0"):
        examples(3).first(0)
    assert len(examples(3).first(9)) == 3


def test_channel_statistics_equal_numpy_on_the_whole_array():
    images = np.random.default_rng(0).integers(0, 256, (2500, 2, 3, 4), dtype=np.uint8)
    images[:, 1] = 7
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, [(images[:, 0] / 255).std(), 1.0], rtol=1e-9)
