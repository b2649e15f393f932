"""Numbers as a report writes them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from example_runs import example_run

from autoprune.report.facts import collect
from autoprune.report.sparsity import sparsity_table
from autoprune.report.words import chance, exact, percent, plus_minus, quantity
from autoprune.texts import ScoreScale, difference_text, score_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (62_873_920, "62.9 M"),
        (855_770, "855.8 k"),
        (4.1e9, "4.1 G"),
        (512, "512"),
        (3.5178, "3.52"),
        (0, "0"),
        (999, "999"),
        (999.4, "999"),
        (999.7, "1.0 k"),
        (999_940, "999.9 k"),
        (999_960, "1.0 M"),
        (999_960_000, "1.0 G"),
    ],
)
def test_costs_read_at_a_glance(value: float, text: str) -> None:
    assert quantity(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12_345_678, "12,345,678"),
        (12_345_678.5, "12,345,678.5"),
        (12_345.678, "12,345.68"),
        (99_999.5, "99,999.5"),
        (1_000.004, "1,000"),
        (999.96, "1000"),
        (123.456, "123.5"),
        (0.27251, "0.2725"),
    ],
)
def test_exact_costs_keep_every_digit_before_their_point(value: float, text: str) -> None:
    assert exact(value) == text


@pytest.mark.parametrize("power", range(-3, 12))
def test_no_cost_is_told_in_powers_of_ten_or_far_off(power: int) -> None:
    for value in (m * 10.0**power for m in (1.0, 1.2345678, 9.4999, 9.9949, 9.9951, 9.99951, 9.9999999)):
        number, _, unit = quantity(value).partition(" ")
        assert float(number) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[unit] == pytest.approx(value, rel=0.05)
        assert "e+" not in number
        assert float(number) < 1000 or unit == "G"
        assert float(exact(value).replace(",", "")) == pytest.approx(value, rel=5e-4)
        assert "e+" not in exact(value)


def test_large_scores_are_no_powers_of_ten_either() -> None:
    scale = ScoreScale("perplexity", "", higher_is_better=False)
    assert score_text(-12_345.6, scale) == "12,346"
    assert score_text(-1.5e12, scale) == "1.5e+12"
    assert difference_text(1234.5, scale) == "-1,234"
    assert difference_text(-1234.6, scale) == "+1,235"
    assert plus_minus(-23_456.7, 123.4, scale) == "23,457 ± 123"


def test_hours_of_a_sparsity_training_are_told_in_seconds() -> None:
    record = example_run()
    arm = replace(record.arms[1], name="slimming", method="slimming")
    facts = {"sparsity": {"slimming": {"passes": 2.6667, "seconds": 5432.1}}}
    rows = sparsity_table(replace(record, arms=(*record.arms, arm), provenance=facts)).rows
    assert rows[0][2:4] == ("2.67", "5,432")


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
