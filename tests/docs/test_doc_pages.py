"""Every code block of the README and of docs/ runs; `pages` says how, and which marks there are."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import ROOT, Page, blocks, forget, shrunk

from autoprune.errors import ConfigError

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = [path for path in PAGES if any(one.language != "text" and "not run" not in one.marks for one in blocks(path))]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", RUN, ids=named)
@pytest.mark.parametrize("small", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["small", "as shown"])
def test_every_block_of_a_page_runs(
    path: Path,
    small: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    import_torchvision: Callable[[], object],
) -> None:
    if importlib.util.find_spec("torchvision") is not None:
        import_torchvision()
    page = Page(tmp_path, monkeypatch, small=small, slow=not small)
    try:
        assert page.run(path) > 0 or small
    finally:
        forget(tmp_path)


def test_what_is_not_run_says_why_and_is_little() -> None:
    every = [one for path in PAGES for one in blocks(path) if one.language != "text"]
    left_out = [one for one in every if "not run" in one.marks]
    assert all(len(one.marks["not run"]) > 10 for one in left_out)
    assert len(left_out) < len(every) / 6


def test_files_that_pages_name_exist() -> None:
    places = "autoprune|benchmarks|configs|docs|examples|search_spaces|tests"
    for path in PAGES:
        text = path.read_text()
        for name in re.findall(rf"`((?:{places})/[\w/.-]+)`", text):
            assert (ROOT / name).exists(), f"{named(path)} names {name}"
        for link in re.findall(r"\]\(([^)\s#:]+)(?:#[\w-]+)?\)", text):
            assert (path.parent / link).exists(), f"{named(path)} links to {link}"


def test_shrinking_leaves_more_trials_more() -> None:
    text = "--trials 200 search.trials=80 {trials: 60} epochs: 40 \"fine_tune_epochs\": 4 seeds=3 {'a': 100}"
    small = "--trials 10 search.trials=4 {trials: 3} epochs: 2 \"fine_tune_epochs\": 1 seeds=2 {'a': 100}"
    assert shrunk(text) == small


def test_marks_are_of_the_block_that_follows(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- slow; needs: onnx -->\n```python\n1\n```\n\n<!-- a remark -->\n```bash\n2\n```\n\n```text\n3\n```\n"
        '<!-- not run: a cluster -->\n```yaml title="job.yaml"\n4\n```\n'
    )
    found = blocks(page)
    assert [dict(one.marks) for one in found] == [{"slow": "", "needs": "onnx"}, {}, {}, {"not run": "a cluster"}]
    assert [(one.language, one.title, one.text, one.line) for one in found[2:]] == [
        ("text", "", "3\n", 11),
        ("yaml", "job.yaml", "4\n", 15),
    ]


def test_a_block_that_cannot_run_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text, error in (
        ("```python\n1 / 0\n```", ZeroDivisionError),
        ("```bash\nautoprune no_such_command\n```", AssertionError),
        ("```bash\nrm -rf /\n```", AssertionError),
        ("```bash\nmake no_such_target\n```", AssertionError),
        ("```yaml\nno_such_key: 1\n```", ConfigError),
        ("```cobol\nSTOP RUN.\n```", AssertionError),
        ("text:\n\n    indented\n", AssertionError),
    ):
        page = tmp_path / "page.md"
        page.write_text(text)
        with pytest.raises(error):
            Page(tmp_path, monkeypatch).run(page)
