"""Fills pages of the site with what the code knows: the command line, the parts, a job with every key.

MkDocs calls `on_config` and `on_page_markdown` (mkdocs.yml, `hooks`). A page asks with a line
`<!-- fill: cli -->`. Links to files outside docs/, which readers of the repository can follow, become plain text, if
there is such a file; else the build fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def command_line() -> str:
    """Every command with its options, as `--help` shows them."""
    import typer
    from typer.cli import get_docs_for_click

    from autoprune.cli.main import app

    command = typer.main.get_command(app)
    text: str = get_docs_for_click(obj=command, ctx=typer.Context(command), name="autoprune")
    return text.partition("\n")[2].replace("```console", "```text")  # the page has a title of its own


def parts() -> str:
    """A table of each kind of part: name, use, source."""
    from autoprune.cli.parts import KINDS, parts_json

    found = []
    for kind in KINDS:
        rows = parts_json(kind)
        found += [f"## {kind}", "", "| name | when to use it | source |", "|---|---|---|"]
        found += [f"| `{row['name']}` | {_cell(row['use'])} | {_cell(row['source'])} |" for row in rows[kind]]
        found += ["", *(f"Every one has the setting `{name}`: {what}" for name, what in rows["settings"].items()), ""]
    return "\n".join(found)


ROLES = {
    "kinds": "dimension: what a width of a group counts",
    "criteria": "importance: which channels of a group stay",
    "allocations": "allocation: widths in one shot",
    "sparsity": "sparsity training: widths that a training finds",
    "inheritance": "inheritance: weights of cut networks",
    "controllers": "search: proposes widths, learns from scores",
    "evaluators": "evaluation: widths to a score",
    "proxies": "evaluation without training or data",
    "terms": "term of the loss",
    "objectives": "objective of trainings",
    "protocols": "final training",
}
"""Kinds of parts that hold methods of the literature -> their role."""


def methods() -> str:
    """Every method: role, source, file, and the verdict of its job where there is one."""
    import json

    from autoprune.cli.parts import KINDS
    from autoprune.registry import load_object

    known = (ROOT / "docs" / "results" / "methods.jsonl").read_text().splitlines()
    rows = sorted(map(json.loads, known), key=lambda row: row["job"] == row["method"].partition("(")[0])
    verdicts = {row["method"].partition("(")[0]: row for row in rows}  # of several the job of its own name
    found = []
    for kind, role in ROLES.items():
        table = load_object(KINDS[kind])
        found += [f"## {kind}", "", f"{role[:1].upper()}{role[1:]}.", "", "| method | source | file | verdict |"]
        found += ["|---|---|---|---|"]
        for name, card in table.cards().items():
            file = card.path.partition(":")[0].replace(".", "/")
            own = (
                name
                if kind == "sparsity"
                else f"search of {name}"
                if kind in ("criteria", "evaluators", "kinds")
                else ""
            )
            row = verdicts.get(own)
            verdict = "" if row is None else f"{row['difference']} ({row['interval']})"
            found.append(f"| `{name}` | {_cell(card.source)} | `{file}.py` | {verdict} |")
        found.append("")
    return "\n".join(found)


def job() -> str:
    """The job file that shows every key."""
    return _file("configs/digits_resnet20.yaml")


def space() -> str:
    """The space file that shows every key."""
    return _file("search_spaces/every_channel.yaml")


def own_parts() -> str:
    """How to add a part, from CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    return text.partition("## Adding a part\n")[2].partition("\n## Habits")[0]


def _file(path: str) -> str:
    return f'```yaml title="{path}"\n{(ROOT / path).read_text()}```\n'


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


FILLED: dict[str, Callable[[], str]] = {
    "cli": command_line,
    "parts": parts,
    "methods": methods,
    "job": job,
    "space": space,
    "own_parts": own_parts,
}


def on_config(config: Any) -> Any:
    """List all pages of docs/results, by the names of their files."""
    pages = [path.name for path in (ROOT / "docs" / "results").glob("*.md")]
    (results,) = (entry for entry in config.nav if "Results" in entry)
    pages.sort(key=lambda name: (name != "README.md", name))
    results["Results"] = [{_title(name): f"results/{name}"} for name in pages]
    return config


def _title(name: str) -> str:
    return "Overview" if name == "README.md" else name.removesuffix(".md").replace("_", " ").capitalize()


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace each `<!-- fill: NAME -->` by what NAME makes, links to files outside the site by their text."""
    folder = Path(page.file.abs_src_path).parent

    def shown(found: re.Match[str]) -> str:
        target = (folder / found[2]).resolve()
        outside = target.exists() and not target.is_relative_to(ROOT / "docs")
        return found[1] if outside else found[0]

    linked = re.sub(r"\[([^\]]+)\]\((\.\./[^)#\s]+)\)", shown, markdown)
    return re.sub(r"^<!-- fill: (\w+) -->$", lambda found: FILLED[found[1]](), linked, flags=re.MULTILINE)
