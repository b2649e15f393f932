"""What the pages of `benchmarks/channel_bench.py` are computed with."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from search_problems.channel_table import RedrawnProblem, Table, TableProblem
from search_problems.comparison import difference
from search_problems.kept import KeptReplays
from search_problems.replay import HIGHEST, PROBABLE, Answer, Replay, replay

from autoprune.cost.budget.budget import BAND

NOISE = 0.2
EFFECT = np.array([0.8, 0.3, 0.1])


def write_table(path: Path, seed: int = 0) -> Path:
    """Three groups of four widths, three trainings each, no more in a row than the model of the table can say."""
    rng = np.random.default_rng(seed)
    rows = {}
    for widths in product(range(1, 5), repeat=3):
        accuracy = 90 + EFFECT @ np.log(widths) + rng.normal(scale=NOISE, size=3)
        a, b, c = widths
        rows["".join(map(str, widths))] = {"acc": accuracy.tolist(), "flops": 10 * a * b + 10 * b * c + c}
    path.write_text(json.dumps(rows))
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return Table(write_table(tmp_path_factory.mktemp("table") / "table.json"))


def answer(row: int, gain: float = 0.0) -> Replay:
    both = Answer((row,), gain, gain)
    return Replay({50: {HIGHEST: both, PROBABLE: both}}, 0.0)


def test_the_labels_of_a_search_and_the_judges_of_its_answer_are_different_trainings(table: Table) -> None:
    problem = TableProblem(table, 2)
    experiment, widths = problem.experiment(0), (1, 3, 2)
    trainings, uniform = table.accuracies[table.row[widths]], table.accuracies[table.row[(2, 2, 2)]]
    shown = [experiment.score(w) for w in (widths, (2, 2, 2))]
    unseen = [np.delete(a, list(a).index(s)).mean() for a, s in zip((trainings, uniform), shown, strict=True)]
    assert experiment.gain(widths) == pytest.approx(unseen[0] - unseen[1])
    assert len({problem.experiment(seed).score(widths) for seed in range(20)}) == 3


def test_rows_are_trained_anew_with_the_noise_of_one_training(table: Table) -> None:
    problem = RedrawnProblem(table, 2)
    scores = np.array([problem.experiment(seed).score((1, 3, 2)) for seed in range(2000)])
    assert scores.std() == pytest.approx(table.noise(problem.domain), rel=0.06)
    assert scores.mean() == pytest.approx(table.smoothed[table.row[(1, 3, 2)]], abs=0.02)
    gain = EFFECT @ np.log([1, 1.5, 1.0]) - EFFECT @ np.log([2, 1, 1.0])
    assert problem.experiment(0).gain((1, 3, 2)) == pytest.approx(gain, abs=0.2)
    assert problem.experiment(0).gain((2, 2, 2)) == 0
    inside = problem.domain.feasible(table.widths)
    assert problem.ceiling == max(problem.experiment(0).gain(tuple(map(int, w))) for w in table.widths[inside])


def test_noise_and_residual_are_those_of_the_rows_in_the_budget(table: Table) -> None:
    problem = TableProblem(table, 2)
    usage = problem.domain.budget.usage(table.widths)
    rows = (usage >= BAND) & (usage <= 1.0)
    assert 3 <= rows.sum() < len(rows)
    by_hand = np.sqrt(np.mean([np.var(a, ddof=1) for a in table.accuracies[rows]]))
    assert table.noise(problem.domain) == pytest.approx(by_hand)
    assert problem.row_luck == pytest.approx(by_hand / np.sqrt(3))


def test_standard_errors_with_the_luck_of_rows_are_right_on_many_tables() -> None:
    """Two controllers that only differ in which rows they like: the truth is no difference at all."""
    rng = np.random.default_rng(0)
    likes = [np.array([0.7, 0.1, 0.1, 0.1]), np.array([0.1, 0.1, 0.2, 0.6])]
    with_luck, without = [], []
    for _ in range(300):
        luck = rng.normal(scale=0.1, size=4)
        runs = [[answer(int(r), luck[r] + rng.normal(scale=0.1)) for r in rng.choice(4, 200, p=p)] for p in likes]
        found = difference(*runs, 50, HIGHEST, row_luck=0.1)
        with_luck.append(found.errors_with_luck)
        without.append(found.errors)
    assert 0.85 < np.std(with_luck) < 1.15
    assert np.std(without) > 2, "repetitions share the table"


def test_controllers_that_answer_alike_share_the_luck() -> None:
    runs = [answer(row % 3, 0.1 * row) for row in range(60)]
    assert difference(runs, runs[::-1], 50, HIGHEST, row_luck=0.1).shared < 0.02
    apart = [answer(7, 0.0)] * 60
    assert difference([answer(1, 0.0)] * 60, apart, 50, HIGHEST, row_luck=0.1).shared == pytest.approx(0.1 * np.sqrt(2))
    assert difference(runs, apart, 50, HIGHEST).shared == 0


def test_replays_are_kept_and_what_was_cut_off_is_run_again(tmp_path: Path, table: Table) -> None:
    problem, file = TableProblem(table, 2), tmp_path / "kept.jsonl"
    found = [replay(problem, "random", [4, 8], seed) for seed in range(3)]
    first = KeptReplays(file)
    first.add(problem.name, "random", [4, 8], 0, found[0])
    file.write_text(file.read_text() + '{"problem": "table, unif')
    second = KeptReplays(file)
    for seed in (1, 2):
        second.add(problem.name, "random", [4, 8], seed, found[seed])
    again = KeptReplays(file)
    assert [again.get(problem.name, "random", [4, 8], seed) for seed in range(3)] == found
    assert again.get(problem.name, "random", [4], 0) is None, "a search knows how long it will be"
    assert again.get(problem.name, "evolution", [4, 8], 0) is None


def test_an_answer_is_inside_the_budget_and_not_uniform(table: Table) -> None:
    problem = TableProblem(table, 2)
    for controller in ("surrogate", "netadapt", "random"):
        for answers in replay(problem, controller, [6, 20], 0).answers.values():
            for found in answers.values():
                assert problem.domain.feasible(np.array([found.widths]))[0]
                assert found.widths != problem.uniform or controller == "netadapt"  # nothing inside so far


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda rows: rows.update({"111": {"acc": [90.0, 91.0, 92.0]}}), "is no table of widths: KeyError"),
        (lambda rows: [row.update(acc=row["acc"][:1]) for row in rows.values()], "two accuracies or more"),
        (lambda rows: rows["123"].update(flops=7), "not a sum of products of two widths"),
    ],
)
def test_what_is_no_table_is_refused(spoil: Callable[[dict[str, object]], None], message: str, tmp_path: Path) -> None:
    path = write_table(tmp_path / "table.json")
    rows = json.loads(path.read_text())
    spoil(rows)
    path.write_text(json.dumps(rows))
    with pytest.raises(SystemExit, match=message):
        Table(path)
