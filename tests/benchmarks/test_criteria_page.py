"""What the page of `benchmarks/criteria.py` is computed with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from reconstruction.criteria_page import across, agreement, correlation, failures, lines, page, spread, within
from reconstruction.rankings import CHAINS, REPEAT, SCORES, KeptRows, Row

ORACLE = [[1.0, 2.0, 3.0, 4.0], [10.0, 30.0, 20.0]]


def rows(name: str, scores: list[list[float]], *values: float, seed: int = 0) -> list[Row]:
    cuts = [Row("net", name, seed, c, value=v, base=90.0, flops=50.0) for c, v in zip(CHAINS, values, strict=False)]
    return [Row("net", name, seed, SCORES, scores=scores), *cuts]


def whole() -> list[Row]:
    return [
        *rows("ablation", ORACLE, 80, 85, 88),
        *rows("l1", [[4.0, 3.0, 2.0, 1.0], [1.0, 3.0, 2.0]], 60, 84, 87),
        *rows("taylor_gate", [[1.0, 2.0, 4.0, 3.0], [1.0, 3.0, 2.0]], 70, 83, 88),
        *rows("random", [[1.0, 3.0, 2.0, 4.0], [1.0, 2.0, 3.0]], 40, 70, 80, seed=0),
        *rows("random", [[1.0, 3.0, 2.0, 4.0], [1.0, 2.0, 3.0]], 50, 72, 81, seed=1),
        *rows(REPEAT, [[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0]]),
    ]


def test_spearman_is_that_of_the_textbook_where_no_values_are_tied() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.permutation(12), rng.permutation(12)
    expected = 1 - 6 * float(((one - other) ** 2).sum()) / (12 * (12**2 - 1))
    assert correlation(one.tolist(), np.exp(other).tolist()) == pytest.approx(expected)


def test_what_tells_no_channels_apart_agrees_with_nothing() -> None:
    assert correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) == 0
    assert correlation([1.0], [2.0]) == 0


def test_layers_weigh_the_same_within_and_their_scales_count_across() -> None:
    scores = [[100.0, 200.0, 300.0, 400.0], [1.0, 2.0, 3.0]]
    assert within(scores, ORACLE) == pytest.approx((1 + 0.5) / 2)
    ranks, of_oracle = np.array([4, 5, 6, 7, 1, 2, 3]), np.array([1, 2, 3, 4, 5, 7, 6])
    assert across(scores, ORACLE) == pytest.approx(1 - 6 * ((ranks - of_oracle) ** 2).sum() / (7 * 48))


def test_a_group_of_one_channel_has_no_order() -> None:
    assert within([[5.0], [1.0, 2.0]], [[1.0], [1.0, 2.0]]) == pytest.approx(1)


def test_controls_and_the_repeated_oracle_are_not_part_of_the_spread() -> None:
    found = lines(whole(), "net")
    assert spread(found, "recalibrated") == pytest.approx(np.std([80, 60, 70], ddof=1))
    assert [line.criterion for line in found if line.judged] == ["ablation", "taylor_gate", "l1"]


def test_columns_agree_over_the_criteria_that_have_both() -> None:
    found = lines(whole()[:-1], "net")
    later = agreement(found, lambda line: line.cut["recalibrated"], lambda line: line.cut["least_squares"])
    assert later == pytest.approx(0.5)  # ranks 3, 1, 2 and 3, 2, 1


def test_claims_fail_where_taylor_is_below_its_paper_or_reconstruction_leaves_the_spread() -> None:
    good = whole()
    assert [text.split(":")[0] for text in failures(good)] == ["net, within layers", "net, across layers"]
    wide = [*rows("fpgm", ORACLE, 70, 20, 88), *good]
    assert any("after least_squares" in text for text in failures(wide))
    exact = [*good, *rows("taylor_weight", ORACLE, 70, 84, 88)]
    assert failures(exact) == []


def test_the_page_has_every_criterion_and_names_those_that_were_not_run_or_failed() -> None:
    broken = [Row("net", "bn_scale", 0, SCORES, failed="ConfigError: no norms")]
    text = page([*whole(), *broken], budget=50, test_images=100)
    assert "| random | nothing | 0.0 ± 0.0 | 0.65 ± 0.00" in text
    assert "| ablation | labels | 0.0 | 1.00 | 1.00 | 80.00 | 85.00 | 88.00 |" in text
    assert "`bn_scale` failed: ConfigError: no norms" in text
    missing = next(line for line in text.splitlines() if line.startswith("Not run"))
    assert "`l2`" in missing
    assert "`l1`" not in missing
    assert "45.00 ± 7.07" in text
    assert "Networks not run: resnet20, mobilenetv2." in text


def test_without_the_oracle_there_is_nothing_to_agree_with() -> None:
    few = [row for row in whole() if row.criterion not in ("ablation", REPEAT)]
    found = lines(few, "net")
    assert agreement(found, lambda line: line.within, lambda line: line.cut["recalibrated"]) is None
    assert failures(few) == []
    assert "| l1 | weights | 0.0 |  |  | 60.00 | 84.00 | 87.00 |" in page(few, budget=50, test_images=100)


def test_a_row_is_measured_once_and_one_that_was_cut_short_again(tmp_path: Path) -> None:
    path, calls = tmp_path / "kept.jsonl", []

    def work(row: Row) -> Row:
        calls.append(row.criterion)
        return row

    for name in ("l1", "l2"):
        KeptRows(path).once(Row("net", name, 0, SCORES), work)
    KeptRows(path).once(Row("net", "l1", 0, "recalibrated", budget=50), work)
    KeptRows(path).once(Row("net", "l1", 0, "recalibrated", budget=25), work)
    path.write_text(path.read_text()[:-20])
    for name in ("l1", "l2"):
        KeptRows(path).once(Row("net", name, 0, SCORES), work)
    KeptRows(path).once(Row("net", "l1", 0, "recalibrated", budget=25), work)
    assert calls == ["l1", "l2", "l1", "l1", "l1"]
    assert [(row.criterion, row.budget) for row in KeptRows(path).rows] == [
        ("l1", 0),
        ("l2", 0),
        ("l1", 50),
        ("l1", 25),
    ]
