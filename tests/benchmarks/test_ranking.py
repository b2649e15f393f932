"""What the page of `benchmarks/rank_fidelity.py` is computed with."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from ranking.page import Truth, lines, page, truths
from ranking.rows import Appended, read
from ranking.scores import Scored
from ranking.truth import SEEDS, Training, all_trainings

TRUE = [60.0, 61.0, 62.0, 63.0, 64.0, 65.0, 66.0, 67.0, 68.0, 69.0]
NOISE = np.random.default_rng(0).normal(0, 0.3, (len(TRUE), SEEDS))
JUDGE = "inherited, least_squares, loss"


def trainings() -> list[Training]:
    return [
        Training("net", 25, number, "from scratch", seed, (number,), score=true + NOISE[number, seed], cpu_seconds=50.0)
        for number, true in enumerate(TRUE)
        for seed in range(SEEDS)
    ]


def scored(values: list[float]) -> list[Scored]:
    return [Scored("net", 25, n, JUDGE, score=v, passes=2_000.0, cpu_seconds=1.0) for n, v in enumerate(values)]


def test_tau_and_regret_are_what_counting_pairs_gives() -> None:
    (truth,) = truths(trainings())
    values = [3.0, 9.0, 1.0, 4.0, 2.0, 6.0, 5.0, 8.0, 7.0, 0.0]
    one, mine = lines(truth, scored(values), trainings())
    means = truth.means
    signs = [np.sign((values[i] - values[j]) * (means[i] - means[j])) for i, j in combinations(range(10), 2)]
    assert mine.tau == pytest.approx(np.mean(signs))
    assert mine.low < mine.tau < mine.high
    assert mine.top1 == pytest.approx(means.max() - means[1])
    assert mine.top5 == pytest.approx(means.max() - means[[1, 7, 8, 5, 6]].max())
    assert one.name.startswith("one training")
    assert one.tau > 0.9
    assert mine.cost / one.cost == pytest.approx(0.02)


def test_reliability_is_the_share_of_the_variance_that_belongs_to_the_widths() -> None:
    rng = np.random.default_rng(1)
    table = rng.normal(0, 2.0, (4_000, 1)) + rng.normal(0, 1.0, (4_000, SEEDS))
    assert Truth("net", 25, "from scratch", tuple(range(4_000)), table).reliability == pytest.approx(0.8, abs=0.02)
    assert Truth("net", 25, "from scratch", (0, 1), np.ones((2, SEEDS))).reliability == 0


def test_vectors_whose_trainings_are_not_complete_and_judges_that_lack_some_are_left_out() -> None:
    part = trainings()[:-1]
    (truth,) = truths(part)
    assert truth.numbers == tuple(range(9))
    assert len(lines(truth, scored([1.0] * 8), part)) == 1
    assert lines(truth, scored([1.0] * 9), part)[1].tau == 0  # equal scores say nothing
    assert truths(part[: 7 * SEEDS]) == []
    assert "rank 9" in page(part, scored([1.0] * 9))


def test_the_vectors_trained_last_have_a_table_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [replace(one, way="fine-tuned") for one in trainings()]
    (truth,) = truths(given)
    assert truth.since(3) is None, "seven are too few"
    later = truth.since(2)
    assert later is not None
    assert later.numbers == tuple(range(2, 10))
    assert (later.scores == truth.scores[2:]).all()
    monkeypatch.setattr("ranking.page.BLENDED_AT", 2)
    values = [100.0, 99.0, *(float(n) for n in range(8))]  # wrong about the first two alone
    text = page(given, scored(values))
    _, whole, last, _ = (part.splitlines() for part in text.split("| score |", 3))
    rows = {
        name: [line for line in table if line.startswith(f"| {JUDGE}")] for name, table in (("w", whole), ("l", last))
    }
    assert rows["w"] == [f"| {JUDGE} | 0.24 | 0.24 | 2.0 % |"]
    assert rows["l"] == [f"| {JUDGE} | 1.00 | 1.00 | 2.0 % |"]
    assert "net, 25 %, 8 vectors" in last[0]


def test_an_early_end_leaves_whole_vectors_and_rows_survive_a_torn_line(tmp_path: Path) -> None:
    order = list(all_trainings({"a": {25: [(1,), (2,)]}, "b": {25: [(3,), (4,)]}}))
    assert len(order) == len({one.key for one in order}) == 2 * 2 * 2 * SEEDS
    assert {one.number for one in order[: 4 * SEEDS]} == {0}
    file = tmp_path / "truth.jsonl"
    Appended(file).add(order[0])
    with file.open("a") as torn:
        torn.write('{"network": "a"')
    Appended(file).add(order[1])
    assert [row["seed"] for row in read(file)] == [0, 1]
    assert next(iter(read(file))) == {**asdict(order[0]), "widths": [1]}
