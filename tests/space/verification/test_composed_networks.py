"""Networks put together by chance and traced with examples that hide much: no wrong cut, no silent change of training.

What is right is computed in `silenced.py`, which shares no code with what verifies spaces.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import pytest
import torch
from composed_nets import Case, Inputs, composed
from silenced import cut_error, trains_otherwise

import autoprune
from autoprune import AutopruneError, Space

CHUNK = 9
COVERING = (
    *(1, 2, 3, 6, 7, 10, 11, 12, 13, 16, 17, 20, 21, 22, 23, 25, 28, 29),
    *(30, 31, 32, 38, 39, 40, 44, 46, 48, 49, 50, 52, 53, 54, 55, 56, 57, 59),
)
"""Seeds below 60 among which each habit is that any of the 60 has; the others run with those above."""

LEAST_ACCEPTED = 0.8
"""Share of the networks that must give a space and be cut: refusing all would be no wrong cut either."""


def chunks(seeds: Sequence[int]) -> list[Sequence[int]]:
    return [seeds[first : first + CHUNK] for first in range(0, len(seeds), CHUNK)]


def some_widths(space: Space, seed: int) -> Iterator[tuple[int, ...]]:
    rng = random.Random(seed)
    yield space.uniform(0.5)
    for _ in range(2):
        yield tuple(rng.choice(group.choices) for group in space.groups)


def inputs_for(space: Space, case: Case) -> Iterator[Inputs]:
    """Real inputs; of other shapes only for a network of the model's own class, a graph says that it takes none."""
    yield from case.inputs
    if space.search_space.form == "module":
        yield from case.others


def wrong_cuts(space: Space, case: Case, seed: int) -> list[str]:
    """What each cut network does wrongly; one that does not run on what the model takes is wrong, too."""
    inputs = tuple(inputs_for(space, case))
    found = []
    for number, widths in enumerate(some_widths(space, seed)):
        for given in (inputs[number % 2], *inputs[2 + number :: 3]):
            try:
                error = cut_error(space, case.trained, widths, seed + number, given)
            except (RuntimeError, IndexError, ValueError, AssertionError) as raised:
                found.append(f"{seed} does not run: {raised}")
                continue
            if not error <= 1e-4:
                shapes = [tuple(x.shape) for x in given]
                found.append(f"{seed} is off by {error:.1e} ({space.search_space.form} form, {shapes}): {case.habits}")
    return found


def training_input(space: Space, case: Case) -> Inputs:
    """More than one row where that can be, for batch norms."""
    try:
        with torch.no_grad():
            space.slice(case.trained, space.full)(*case.others[0])
    except AutopruneError:  # a graph of a fixed batch
        return case.inputs[0]
    return case.others[0]


def assert_chunk_is_right(seeds: Sequence[int]) -> None:
    wrong, silent, cut = [], [], 0
    for seed in seeds:
        case = composed(seed)
        try:
            space = autoprune.trace(case.model, case.example, options=case.options or None)
            wrong += wrong_cuts(space, case, seed)
            otherwise = trains_otherwise(space, case.trained, training_input(space, case))
        except AutopruneError:  # refused, with one clear error: when traced, or when what was traced has changed
            continue
        cut += space.uniform(0.5) != space.full
        if otherwise and not any("train" in note for note in space.search_space.notes):
            silent.append(f"{seed}: {otherwise}, of {case.habits}")
    assert not wrong, "\n".join(wrong)
    assert not silent, "\n".join(silent)
    assert cut >= LEAST_ACCEPTED * len(seeds) - 2, "too few networks are cut at all"


def test_each_habit_is_among_the_networks_that_are_always_tried() -> None:
    habits = {seed: set(composed(seed).habits) for seed in range(60)}
    assert set().union(*(habits[seed] for seed in COVERING)) == set().union(*habits.values())


@pytest.mark.parametrize("seeds", chunks(COVERING))
def test_no_wrong_cut_is_accepted_and_training_stays_what_it_was(seeds: Sequence[int]) -> None:
    assert_chunk_is_right(seeds)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", chunks([seed for seed in range(300) if seed not in COVERING]))
def test_no_wrong_cut_of_many_networks_is_accepted(seeds: Sequence[int]) -> None:
    assert_chunk_is_right(seeds)


def test_without_verification_the_oracle_finds_wrong_cuts() -> None:
    unseen = ["is off", "does not run"]
    for seed in (*range(20), 23):
        case = composed(seed)
        space = autoprune.trace(case.model, case.example, options=case.options or None, verify=False)
        wrong = wrong_cuts(space, case, seed) if space.groups else []
        unseen = [what for what in unseen if not any(what in one for one in wrong)]
        if not unseen:
            return
    raise AssertionError(f"no cut {unseen}")
