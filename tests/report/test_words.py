"""Numbers as a report writes them."""

from __future__ import annotations

import pytest
from example_runs import example_run

from autoprune.report.facts import collect
from autoprune.report.words import chance, percent, quantity


@pytest.mark.parametrize(
    ("value", "text"),
    [(62_873_920, "62.9 M"), (855_770, "855.8 k"), (4.1e9, "4.1 G"), (512, "512"), (3.5178, "3.52"), (0, "0")],
)
def test_costs_read_at_a_glance(value: float, text: str) -> None:
    assert quantity(value) == text


def test_a_share_of_nothing_is_a_dash() -> None:
    assert (percent(1, 2), percent(0, 0)) == ("50.0 %", "–")


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (1.0, "more than 99 %"),
        (0.996, "more than 99 %"),
        (0.9901, "more than 99 %"),
        (0.99, "99 %"),
        (0.5, "50 %"),
        (0.01, "1 %"),
        (0.0099, "less than 1 %"),
        (0.0, "less than 1 %"),
    ],
)
def test_a_model_is_never_sure(probability: float, text: str) -> None:
    assert chance(probability) == text


def test_a_probability_says_of_which_examples_it_is() -> None:
    chances = {"uniform_all": 0.9999, "uniform_inner": 0.004}
    (note,) = [note for note in collect(example_run(chances=chances)).notes if "By that model" in note]
    assert "with a probability of more than 99 % for uniform_all and less than 1 % for uniform_inner;" in note
    assert "on these validation examples" in note
