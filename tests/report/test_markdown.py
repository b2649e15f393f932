from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from example_runs import example_run
from markdown_it import MarkdownIt

from autoprune.report.facts import collect
from autoprune.report.markdown import write_markdown
from autoprune.space.groups import FrozenPart
from autoprune.verdict.record import RunRecord


def render(record: RunRecord, folder: Path) -> str:
    return write_markdown(record, folder / "report.md").read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]


def test_the_sentence_comes_first(tmp_path: Path) -> None:
    record = example_run(gain=3.0)
    assert record.verdict
    text = render(record, tmp_path)
    assert text.splitlines()[0] == f"# {record.verdict.sentence}"
    assert "**better**" in text
    assert render(example_run(trained=False), tmp_path).startswith("# No verdict")


@pytest.mark.parametrize("groups", [1, 5, 60])
def test_every_group_has_a_row_with_its_widths(groups: int, tmp_path: Path) -> None:
    record = example_run(groups=groups)
    table = [[cell.strip() for cell in row] for row in rows(render(record, tmp_path))]
    columns = (record.space.full, record.winner.widths, record.arms[1].widths)
    for i, group in enumerate(record.space.groups):
        assert [group.name, *(str(widths[i]) for widths in columns)] in table


def test_names_from_users_break_no_table(tmp_path: Path) -> None:
    evil = "a|b\n| <script> `c`"
    text = render(example_run(names={0: evil}, frozen=(FrozenPart(evil, 1, evil),), provenance={evil: evil}), tmp_path)
    widths = [len(row) for row in rows(text)]
    tables = re.findall(r"((?:^\|.*\n)+)", text, re.MULTILINE)
    assert widths
    assert all(len({len(row) for row in rows(table)}) == 1 for table in tables)
    assert "<script>" not in text


def test_notes_of_the_space_are_told(tmp_path: Path) -> None:
    record = example_run()
    noted = replace(record, space=replace(record.space, notes=("in training, the traced graph does less",)))
    assert "- In training, the traced graph does less." in render(noted, tmp_path)


def test_a_run_without_frozen_or_failed_parts_says_so(tmp_path: Path) -> None:
    text = render(example_run(trials=(), trained=False), tmp_path)
    assert "Nothing is frozen." in text
    assert "No trial failed." in text
    assert "No final networks were trained." in text


def test_equal_errors_are_one_row_with_their_trials() -> None:
    failed = collect(example_run(searched=40)).failed
    assert failed.rows == (("ValueError: loss <b>is</b> nan", "5", "8, 17, 26, 35, 44"),)


def test_scores_of_an_arm_are_mean_and_deviation_over_its_seeds() -> None:
    record = example_run()
    scores = [f.score for f in record.finals if (f.arm, f.protocol) == ("winner", "fine_tune")]
    mean = sum(scores) / 3
    deviation = (sum((s - mean) ** 2 for s in scores) / 2) ** 0.5
    assert collect(record).arms.rows[0][1] == f"{mean:.2f} ± {deviation:.2f} %"


def test_nothing_of_a_users_becomes_a_link_markup_or_a_control_character(tmp_path: Path) -> None:
    evil = "[a](javascript:alert(1)) ![i](http://x.y/z) <b> `c` *d* www.x.yz https://x.y \x1b[31m\u202e $x_1$ ~~s~~"
    record = example_run(names={0: evil}, frozen=(FrozenPart("f", 1, evil),), provenance={"k": evil, "_k_": evil})
    job = {**record.job, "name": "x\n~~~~\n[a](http://x.y)\u202e"}
    text = render(replace(record, job=job), tmp_path)
    assert not set(text) & {"\x1b", "\u202e"}
    page = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    assert not re.findall(r"<(?:a|img|script|b|em|code(?! class)|s)[ >]", page.replace("<strong>", ""))
    assert not re.search(r"(?:https?|ftp)://|www\.", text.partition("## Job")[0])  # others make links of them
