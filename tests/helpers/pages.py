"""Runs the code blocks of a page, in order, in one namespace and in an empty folder of their own.

What stands before a block in an HTML comment, which no reader sees, are its marks, `<!-- slow; needs: onnxscript -->`:

- `slow`: too long for every run of the tests, even when shrunk.
- `needs: NAME`: a package that the project does not require; left out where it is not installed.
- `not run: REASON`: a cluster, a browser, a server.

Blocks in the language `text` show what came out and are not run. Python runs; with a title it is written to a file of
that name instead, as YAML is. YAML without a title is part of a job and is checked as one. Of bash, commands of
`autoprune` and scripts run in this process; targets of `make` and extras that `pip` installs have to exist.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from autoprune.cli import main as cli
from autoprune.config.job import Job, load_job
from autoprune.config.validation import validated

ROOT = Path(__file__).parents[2]
MARKS = ("slow", "needs", "not run")
_COMMENT = re.compile(r"<!-- (.*) -->")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: the first word after the fence.
        title: of `title="…"`; a file.
        text: what stands in it.
        line: where, counted from 1.
        marks: of `MARKS`, with the package or the reason.
    """

    language: str
    title: str
    text: str
    line: int
    marks: Mapping[str, str]


def blocks(path: Path) -> list[Block]:
    """Those of a page; indented ones are refused, as nothing says their language."""
    source = path.read_text()
    lines, found = source.splitlines(), []
    for token in MarkdownIt().parse(source):
        assert token.type != "code_block", f"{path.name}:{token.map[0] + 1}: fence this block and say its language"
        if token.type == "fence":
            language, _, rest = token.info.strip().partition(" ")
            title = re.search(r'title="([^"]+)"', rest)
            comment = _COMMENT.fullmatch(lines[token.map[0] - 1]) if token.map[0] else None
            pairs = (one.partition(": ") for one in comment[1].split("; ")) if comment else ()
            marks = {mark: told for mark, _, told in pairs if mark in MARKS}
            found.append(Block(language, title[1] if title else "", token.content, token.map[0] + 1, marks))
    return found


_FEWER = (
    (re.compile(r"((?:\btrials\b[\"']?|search\.trials[\"']?|--trials)\s?[:= ]\s?)(\d+)"), 20),
    (re.compile(r"((?:\bepochs|fine_tune_epochs)[\"']?\s?[:=]\s?)(\d+)"), 20),
    (re.compile(r"(\bseeds[\"']?\s?[:=]\s?)(\d+)"), 2),
    (re.compile(r"(\b(?:random_candidates|rescore):\s?)(\d+)"), 9),
)
_CHEAPER = (
    (re.compile(r"(\ballocations: )\[[^\]]*\]"), r"\1[]"),
    (re.compile(r"(\blatency: )true"), r"\1false"),
    (re.compile(r"(\bprotocols: \[\w+), [^\]]*\]"), r"\1]"),
    (
        re.compile(r"(verdict=\{)"),
        r'\1"seeds": 1, "protocols": ["fine_tune"], "random_candidates": 1, "latency": False, ',
    ),
    (re.compile(r"(verdict: \{)(?![^}]*latency)"), r"\1latency: false, "),
    (re.compile(r"(verdict: \{)"), r"\1random_candidates: 1, "),
    (re.compile(r"(search: \{)"), r"\1allocations: [], rescore: 1, "),
    (re.compile(r"((?<![.\w])trials=)"), r"allocations=[], \1"),
    (re.compile(r"(\"in_channels\": 1)\}"), r'\1, "width": 0.25}'),
)


def shrunk(text: str) -> str:
    """The same job in little: a twentieth of the trials and epochs, half of the seeds, no rules, no timing, narrow."""
    for pattern, part in _FEWER:
        text = pattern.sub(lambda found, part=part: f"{found[1]}{-(-int(found[2]) // part)}", text)
    for pattern, less in _CHEAPER:
        text = pattern.sub(less, text)
    return text


@dataclass
class Page:
    """A page that is being run.

    Attributes:
        folder: the current one, where the page's commands find configs/, search_spaces/ and examples/.
        patch: undoes what the page does to the environment.
        small: whether numbers are shrunk.
        slow: whether slow blocks run, too.
    """

    folder: Path
    patch: pytest.MonkeyPatch
    small: bool = True
    slow: bool = False

    def __post_init__(self) -> None:
        for name in ("configs", "search_spaces", "examples"):
            for source in sorted((ROOT / name).rglob("*.*")):
                target = self.folder / source.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(self._sized(source.read_text()))
        self.names: dict[str, Any] = {"__name__": "page"}
        self.patch.chdir(self.folder)
        self.patch.syspath_prepend(str(self.folder))

    def _sized(self, text: str) -> str:
        return shrunk(text) if self.small else text

    def run(self, path: Path) -> int:
        """Run the blocks of a page; the number of those that were."""
        done = 0
        for block in blocks(path):
            if block.language == "text" or not self._runs(block.marks):
                continue
            try:
                self._block(block, f"{path.name}:{block.line}")
            except BaseException as error:
                error.add_note(f"in the block at {path}:{block.line}")
                raise
            done += 1
        return done

    def _runs(self, marks: Mapping[str, str]) -> bool:
        needed = marks.get("needs")
        there = needed is None or importlib.util.find_spec(needed) is not None
        return there and "not run" not in marks and ("slow" not in marks or self.slow)

    def _block(self, block: Block, where: str) -> None:
        text = self._sized(block.text)
        if block.title:
            Path(block.title).write_text(text)
            if block.language == "yaml" and "constraints:" in text:
                load_job(Path(block.title))
        elif block.language == "python":
            exec(compile(text, where, "exec"), self.names)
        elif block.language == "yaml":
            whole = yaml.safe_load((ROOT / "configs" / "digits_resnet20.yaml").read_text())
            whole["space"] = {}
            validated(Job, merged(whole, yaml.safe_load(text)), where)
        elif block.language == "bash":
            for words in commands(text):
                self._command(words)
        else:
            raise AssertionError(f"{where}: nothing runs {block.language!r}; blocks that show output say text")

    def _command(self, words: list[str]) -> None:
        first, *rest = words
        if first == "autoprune":
            self.patch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as ended:
                cli.main()
            assert ended.value.code in (0, None), shlex.join(words)
        elif first == "make":
            targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
            assert set(rest) <= targets, shlex.join(words)
        elif first == "pip":
            known = (ROOT / "pyproject.toml").read_text()
            extras = [one for word in rest for one in re.findall(r"autoprune\[(\w+)\]", word)]
            assert extras, f"{shlex.join(words)}: only extras of the project are checked"
            assert all(re.search(rf"^{one} = \[", known, re.MULTILINE) for one in extras), shlex.join(words)
        elif first == "export":
            name, _, value = rest[0].partition("=")
            self.patch.setenv(name, value)
        elif first == "python":
            self._script(rest)
        else:
            raise AssertionError(f"nothing runs {shlex.join(words)}; mark the block `<!-- not run: why -->`")

    def _script(self, words: list[str]) -> None:
        import runpy

        self.patch.setattr(sys, "argv", words)
        runpy.run_path(words[0], run_name="__main__")


def merged(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """A job with the keys of a part of one in their places; a mapping goes into one, but for constraints."""
    found = dict(whole)
    for key, value in part.items():
        old = found.get(key)
        into = isinstance(old, dict) and isinstance(value, dict) and key != "constraints"
        found[key] = merged(old, value) if into else value
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of a bash block, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def forget(folder: Path) -> None:
    """Leave no module of a folder imported: the next page has other files of that name."""
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(folder):
            del sys.modules[name]
