import random

import numpy as np
import torch

from autoprune.randomness import isolated, seeded, untouched


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_inside_comes_from_the_seed_and_outside_goes_on_as_if_nothing_had_been_drawn():
    with seeded(3):
        expected_outside = [draw(), draw()]
    with seeded(3):
        outside = [draw()]
        with seeded(7):
            first = draw()
        outside.append(draw())
        with seeded(7):
            assert draw() == first
    assert outside == expected_outside


def test_untouched_gives_back_what_was_drawn_inside():
    with seeded(3):
        with untouched():
            draw()
        after = draw()
    with seeded(3):
        assert draw() == after


def test_the_state_comes_back_after_an_error():
    before = torch.get_rng_state()
    try:
        with seeded(1):
            draw()
            raise KeyError
    except KeyError:
        pass
    assert torch.equal(torch.get_rng_state(), before)


def test_an_isolated_iteration_and_its_consumer_do_not_share_random_numbers():
    def source():
        for _ in range(4):
            yield draw()

    alone = list(isolated(source(), seed=5))
    assert len(set(alone)) == 4
    with seeded(9):
        expected = [draw() for _ in range(4)]
    with seeded(9):
        pairs = [(item, draw()) for item in isolated(source(), seed=5)]
    assert [item for item, _ in pairs] == alone
    assert [mine for _, mine in pairs] == expected


def test_an_own_generator_is_borrowed_too():
    generator = torch.Generator().manual_seed(11)
    before = generator.get_state()

    def source():
        yield torch.rand((), generator=generator).item()
        yield torch.rand((), generator=generator).item()

    assert list(isolated(source(), generator, seed=1)) == list(isolated(source(), generator, seed=1))
    assert torch.equal(generator.get_state(), before)
