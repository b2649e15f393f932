from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from example_runs import example_run

from autoprune.report.html import write_html
from autoprune.space.groups import FrozenPart
from autoprune.verdict.record import Comparison, RunRecord, Verdict

VOID = {"meta", "br", "hr", "img", "link", "input"}
RUNS: dict[str, dict[str, Any]] = {
    "usual": {},
    "no verdict": {"trained": False},
    "baselines only": {"searched": 0, "trained": False},
    "no trials": {"trials": (), "trained": False, "posterior": {}},
    "fractions": {"unit": ""},
    "one seed": {"seeds": 1},
    "worse": {"gain": -2.0},
    "one group": {"groups": 1},
    "sixty groups": {"groups": 60},
    "no separate test": {"test_split": False},
    "bare": {"provenance": {}, "job": {}, "base": {}, "posterior": {}},
}


class Page(HTMLParser):
    """Texts in order, attributes, and whether every tag is closed in its turn."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self._open: list[str] = []
        self.feed(markup)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and not {"style", "title"} & set(self._open):
            self.texts.append(" ".join(data.split()))

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _, _ in self.attributes}


def render(record: RunRecord, folder: Path) -> tuple[str, Page]:
    path = write_html(record, folder / "report.html")
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.mark.parametrize("case", RUNS)
def test_every_kind_of_run_renders_with_its_outcome_first(case: str, tmp_path: Path) -> None:
    record = example_run(**RUNS[case])
    text, page = render(record, tmp_path)
    if record.verdict:
        assert page.texts[0] == record.verdict.sentence
        assert page.texts[1].lower() == record.verdict.outcome
    else:
        assert page.texts[0].startswith("No verdict")
    names = set(page.texts)
    assert {group.name for group in record.space.groups} <= names
    assert "One multiply-add counts as one FLOP." in text
    assert "nan" not in re.findall(r"[\w.]+", text.replace("is&lt;/b&gt; nan", "")), "a coordinate is not a number"


def test_nothing_is_fetched(tmp_path: Path) -> None:
    text, page = render(example_run(), tmp_path)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "image"}
    loads = [
        (tag, name, value) for tag, name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset")
    ]
    assert loads
    assert all(value.startswith("#") for _, _, value in loads)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "http" not in text
    assert "@import" not in text


def test_identifiers_are_distinct_and_every_reference_has_its_target(tmp_path: Path) -> None:
    text, page = render(example_run(), tmp_path)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', text)) <= set(ids)


def test_names_from_users_are_text(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script> & $x_{$'
    record = example_run(
        names={0: evil},
        frozen=(FrozenPart(evil, 4, evil),),
        job={"model": evil},
        provenance={evil: evil},
        directory=Path("<script>run"),
    )
    text, page = render(record, tmp_path)
    assert "script" not in page.tags
    assert "<script" not in text
    assert page.texts.count(evil) >= 4  # group, frozen part, environment twice


def test_a_protocols_name_is_not_markup_either(tmp_path: Path) -> None:
    evil = "$<script>_{$"
    comparison = Comparison(evil, "uniform_all", 0.8, 0.2, 1.4, 3, "better")
    _, page = render(example_run(verdict=Verdict("Better.", "better", (comparison,))), tmp_path)
    assert "script" not in page.tags
    assert page.texts.count(evil) == 3  # two sizes of the figure, one table


def test_evaluations_test_split_and_frozen_parts_are_stated(tmp_path: Path) -> None:
    text, _ = render(example_run(searched=40), tmp_path)
    assert "winner 40, uniform_all 1, uniform_inner 1" in text
    assert "flatters the winner" not in text
    assert "Nothing is frozen." in text
    assert "loss &lt;b&gt;is&lt;/b&gt; nan" in text
    text, page = render(example_run(test_split=False, frozen=(FrozenPart("head", 7, "tied to the output"),)), tmp_path)
    assert "flatters the winner" in text
    assert "tied to the output" in page.texts
    assert "Nothing is frozen." not in text


def test_bars_have_the_widths_share(tmp_path: Path) -> None:
    record = example_run()
    _, page = render(record, tmp_path)
    drawn = [
        float(v.split()[1].rstrip("%")) for _, name, v in page.attributes if name == "style" and v.startswith("width: ")
    ]
    shares = [100 * w / full for w, full in zip(record.winner.widths, record.space.full, strict=True)]
    assert drawn == pytest.approx(shares, abs=0.01)


def test_same_run_same_page_and_matplotlibs_settings_stay(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    first, _ = render(example_run(), tmp_path)
    second, _ = render(example_run(), tmp_path)
    assert first == second
    assert dict(matplotlib.rcParams) == before
