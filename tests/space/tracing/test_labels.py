from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.space.tracing.labels import FIXED, VOID, Labels, spread, tighten, varies

N = 12
PAIRS = st.lists(st.tuples(st.integers(1, N), st.integers(1, N)), max_size=20)


def solved(pairs: list[tuple[int, int]], frozen: list[int]) -> tuple[list[int], set[int]]:
    """Class of each label and the frozen labels, as the book solves them."""
    labels = Labels()
    every = labels.fresh(N)
    for a, b in pairs:
        labels.unite(torch.tensor([a]), torch.tensor([b]), "tied")
    for label in frozen:
        labels.freeze(torch.tensor([label]), "frozen")
    classes = labels.solve()
    return classes.root[every.numpy()].tolist(), {int(x) for x in every.numpy()[classes.of(every) < 0]}


def by_hand(pairs: list[tuple[int, int]]) -> list[set[int]]:
    """The same classes by merging Python sets."""
    sets = [{label} for label in range(1, N + 1)]
    for a, b in pairs:
        one, other = (next(s for s in sets if x in s) for x in (a, b))
        if one is not other:
            sets.remove(other)
            one |= other
    return sets


@settings(deadline=None)
@given(PAIRS, st.lists(st.integers(1, N), max_size=4))
def test_unions_are_the_smallest_equivalence_and_freezing_takes_whole_classes(
    pairs: list[tuple[int, int]], frozen: list[int]
) -> None:
    root, held = solved(pairs, frozen)
    sets = by_hand(pairs)
    for a in range(1, N + 1):
        mine = next(s for s in sets if a in s)
        assert {b for b in range(1, N + 1) if root[b - 1] == root[a - 1]} == mine
        assert (a in held) == bool(mine & set(frozen))


@settings(deadline=None)
@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_unions_does_not_matter(pairs: list[tuple[int, int]], random: np.random.Generator) -> None:
    def partition(given: list[tuple[int, int]]) -> set[frozenset[int]]:
        root, _ = solved(given, [])
        return {frozenset(i for i in range(N) if root[i] == r) for r in root}

    shuffled = [pair[::-1] for pair in pairs]
    random.shuffle(shuffled)  # type: ignore[arg-type]
    assert partition(pairs) == partition(shuffled)


def test_a_channel_tied_to_something_fixed_stays_and_padding_says_nothing() -> None:
    labels = Labels()
    a = labels.fresh(3)
    merged = labels.unite(a, torch.tensor([FIXED, VOID, VOID]), "beside a constant")
    assert merged.tolist() == a.tolist()
    classes = labels.solve()
    assert (classes.of(a) < 0).tolist() == [True, False, False]
    assert set(classes.reasons) == {"beside a constant"}


def test_padding_beside_a_constant_is_a_constant() -> None:
    labels = Labels()
    assert labels.unite(torch.tensor([VOID, FIXED, VOID]), torch.tensor([FIXED, VOID, VOID]), "").tolist() == [
        FIXED,
        FIXED,
        VOID,
    ]


def test_the_first_reason_is_the_one_that_is_told() -> None:
    labels = Labels()
    a = labels.fresh(2)
    labels.freeze(a[:1], "first")
    labels.freeze(a, "second")
    classes = labels.solve()
    assert [classes.why(int(classes.root[int(label)])) for label in a] == ["first", "second"]


def test_one_label_per_channel_ties_all_positions_of_a_channel() -> None:
    labels = Labels()
    x = labels.fresh(2, 3, 4)
    head = labels.per_channel(x, 1, "")
    assert head.shape == (3,)
    classes = labels.solve().of(x)
    for channel in range(3):
        assert len(np.unique(classes[:, channel])) == 1
    assert len(np.unique(classes)) == 3


def test_one_label_per_channel_looks_past_padding() -> None:
    labels = Labels()
    a = labels.fresh(2)
    x = torch.stack([torch.full((2,), VOID), a], dim=1)
    assert labels.per_channel(x, 0, "").tolist() == a.tolist()
    assert (labels.solve().of(a) >= 0).all()


def test_labels_vary_only_where_two_channels_or_a_channel_and_a_constant_meet() -> None:
    def along(*values: int) -> bool:
        return varies(torch.tensor(values), 0)

    assert along(1, 2)
    assert along(1, FIXED)
    assert not along(1, 1)
    assert not along(1, VOID, 1)
    assert not along(FIXED, VOID)
    assert not along(VOID, VOID)
    assert not along(7)
    x = spread(torch.tensor([1, 2, 3]), 1, (2, 3, 4))
    assert [varies(x, d) for d in range(3)] == [False, True, False]
    assert [varies(x.contiguous(), d) for d in range(3)] == [False, True, False]


@settings(deadline=None)
@given(st.lists(st.integers(-1, 3), min_size=1, max_size=4), st.sampled_from([(2, -1, 3), (-1, 1, 2), (2, 2, -1)]))
def test_tightening_changes_storage_and_nothing_else(channels: list[int], shape: tuple[int, ...]) -> None:
    dim = shape.index(-1)
    loose = spread(torch.tensor(channels), dim, [len(channels) if n < 0 else n for n in shape]).contiguous()
    tight = tighten(loose)
    assert torch.equal(tight, loose)
    assert all(tight.stride(d) == 0 for d in range(3) if d != dim and tight.shape[d] > 1)


@settings(deadline=None)
@given(st.permutations(range(4)))
def test_uniting_tight_and_loose_tensors_gives_the_same_classes(order: list[int]) -> None:
    def classes(loose: bool) -> list[int]:
        labels = Labels()
        a, b = (spread(labels.fresh(4), 1, (2, 4, 3)) for _ in range(2))
        b = b[:, order]
        if loose:
            a, b = a.contiguous(), b.contiguous()
        labels.unite(a, b, "")
        root = labels.solve().root
        return [int(root[1 + i] == root[5 + j]) for i in range(4) for j in range(4)]

    assert classes(False) == classes(True)
    assert sum(classes(True)) == 4


def test_a_free_class_has_no_reason() -> None:
    labels = Labels()
    a = labels.fresh(2)
    labels.freeze(a[1:], "frozen")
    classes = labels.solve()
    assert classes.why(int(classes.root[1])) is None
    assert classes.of(a).tolist() == [classes.root[1], -1]


def test_sums_of_one_layer_with_itself_are_not_residual() -> None:
    """The halves of a rotary embedding are one layer's; two layers' sums are residual."""
    labels = Labels()
    a, b = labels.fresh(4), labels.fresh(2)
    labels.mark_residual(a[:2], a[2:])
    labels.mark_residual(a[:1], b[:1])
    residual = labels.solve()
    assert residual.residual[residual.root[a.numpy()]].tolist() == [True, False, False, False]


def test_channels_of_one_producer_split_a_dimension_and_neighbours_do_not() -> None:
    """A class token before patches differs from them without being another head."""
    labels = Labels()
    heads = labels.fresh(6).reshape(2, 3)
    assert labels.splits(heads) == [0, 1]
    token, patches = labels.fresh(3), labels.fresh(3)
    assert labels.splits(torch.stack([token, patches])) == [1]
