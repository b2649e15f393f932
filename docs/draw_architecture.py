"""Draw docs/architecture.png from the imports: the packages in their layers, an arrow where one uses another.

    python docs/draw_architecture.py

Layers are those that import-linter holds (pyproject.toml). Arrows that follow from others are left out.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import networkx

ROOT = Path(__file__).parent.parent
HIDDEN = {"_version", "redaction", "deprecation", "testing"}


def layers() -> list[list[str]]:
    """Packages and modules of the first contract, from the top down."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows = [[name.strip() for name in row.replace(":", "|").split("|")] for row in contracts[0]["layers"]]
    return [kept for row in rows if (kept := [name for name in row if name not in HIDDEN])]


def uses() -> Iterator[tuple[str, str]]:
    """(package, package that it imports), type annotations and functions included."""
    for path in sorted((ROOT / "autoprune").rglob("*.py")):
        own = path.relative_to(ROOT / "autoprune").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("autoprune."):
                other = (node.module or "").split(".")[1]
                if other != own:
                    yield own, other


def size(name: str) -> str:
    """How much is in it."""
    folder = ROOT / "autoprune" / name
    files = sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    lines = sum(len(path.read_text().splitlines()) for path in files)
    return f"{len(files)} files, {lines:,} lines" if len(files) > 1 else f"{lines} lines"


def main() -> None:
    """Draw and write the picture."""
    rows = layers()
    places = {name: ((i + 0.5) / len(row), -float(y)) for y, row in enumerate(rows) for i, name in enumerate(row)}
    graph = networkx.DiGraph((a, b) for a, b in uses() if a in places and b in places)
    arrows = networkx.transitive_reduction(graph)
    figure, axes = plt.subplots(figsize=(10, 0.7 * len(rows)))
    for one, other in sorted(arrows.edges):
        axes.annotate(
            "",
            xy=places[other],
            xytext=places[one],
            arrowprops={"arrowstyle": "-|>", "color": "#8899aa", "lw": 0.9, "shrinkA": 14, "shrinkB": 14},
        )
    for name, (x, y) in sorted(places.items()):
        box = {"boxstyle": "round,pad=0.35", "facecolor": "#eef3f8", "edgecolor": "#33506b", "linewidth": 0.8}
        axes.text(x, y, f"{name}\n{size(name)}", ha="center", va="center", fontsize=8, color="#1b2f42", bbox=box)
    axes.set_xlim(0, 1)
    axes.set_ylim(0.6 - len(rows), 0.6)
    axes.axis("off")
    figure.savefig(ROOT / "docs" / "architecture.png", dpi=120, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    main()
