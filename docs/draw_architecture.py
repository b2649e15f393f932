"""Draws `docs/architecture.svg` from the imports: the packages in their layers, and which imports which.

    make picture

An arrow is left out where a longer way of arrows says the same (the transitive reduction).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import grimp
import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parent.parent
PICTURE = Path(__file__).with_name("architecture.svg")
WIDTH, LINE = 12.0, 0.78
COLOURS = ("#dbe8f6", "#f3f6fa")


def layers() -> list[list[str]]:
    """The packages of each layer, from the top, as import-linter holds them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows = next(contract["layers"] for contract in contracts if contract.get("containers") == ["autoprune"])
    return [row.replace("|", " ").replace(":", " ").split() for row in rows]


def imports() -> dict[str, set[str]]:
    """Package -> the packages that it imports from."""
    graph = grimp.build_graph("autoprune", exclude_type_checking_imports=True, cache_dir=None)
    found: dict[str, set[str]] = {name: set() for row in layers() for name in row}
    for module in graph.modules - {"autoprune"}:
        own = module.split(".")[1]
        there = {other.split(".")[1] for other in graph.find_modules_directly_imported_by(module) if "." in other}
        found[own] |= there - {own}
    return found


def arrows(found: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """(importer, imported), without those that follow from others."""

    def below(name: str) -> set[str]:
        return {end for one in found[name] for end in ({one} | below(one))}

    return [
        (name, one)
        for name in sorted(found)
        for one in sorted(found[name])
        if not any(one in below(other) for other in found[name] - {one})
    ]


def places(rows: list[list[str]], drawn: list[tuple[str, str]]) -> dict[str, tuple[float, float]]:
    """Where each package stands: rows from the top, each package near those that import it."""
    found: dict[str, tuple[float, float]] = {}
    for depth, row in enumerate(rows):
        above = {name: [found[a][0] for a, b in drawn if b == name and a in found] for name in row}
        wished = {name: sum(xs) / len(xs) if xs else WIDTH / 2 for name, xs in above.items()}
        order = sorted(row, key=lambda name: (wished[name], name))
        step = WIDTH / len(order)
        shift = 0.0 if len(order) > 1 else (1 if depth % 2 else -1) * WIDTH / 7  # single ones beside each other's way
        for position, name in enumerate(order):
            found[name] = (step * (position + 0.5) + shift, -LINE * depth)
    return found


def files() -> dict[str, int]:
    """Package -> how many Python files it has."""
    top = ROOT / "autoprune"
    return {
        place.stem: len(list(place.rglob("*.py"))) if place.is_dir() else 1
        for place in sorted(top.iterdir())
        if place.suffix == ".py" or (place / "__init__.py").is_file()
    }


def draw(path: Path) -> None:
    """Write the picture; the same imports give the same file."""
    rows, drawn, sizes = layers(), arrows(imports()), files()
    where = places(rows, drawn)
    with mpl.rc_context({"svg.hashsalt": "autoprune", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure, axes = plt.subplots(figsize=(WIDTH, LINE * len(rows) + 0.4))
        axes.set(xlim=(0, WIDTH), ylim=(-LINE * (len(rows) - 0.5), LINE * 0.6))
        axes.axis("off")
        for a, b in drawn:
            (x0, y0), (x1, y1) = where[a], where[b]
            far = round((y0 - y1) / LINE)
            if far == 0:  # beside each other: over what stands between
                bend, leave = 0.3 if x0 > x1 else -0.3, 0.2
            else:
                bend, leave = 0.0 if far == 1 else 0.13 * (1 if x0 + x1 > WIDTH else -1), -0.2
            arrow = axes.annotate(
                "",
                zorder=1,
                xy=(x1, y1 + 0.2),
                xytext=(x0, y0 + leave),
                arrowprops={
                    "arrowstyle": "-|>",
                    "color": "#7890ab",
                    "lw": 0.9,
                    "shrinkA": 0,
                    "shrinkB": 0,
                    "connectionstyle": f"arc3,rad={bend}",
                },
            )
            arrow.arrow_patch.set_gid(f"{a}-to-{b}")
        for depth, row in enumerate(rows):
            for name in row:
                text = f"{name}  ({sizes[name]})" if sizes[name] > 1 else name
                box = {"boxstyle": "round,pad=0.35", "fc": COLOURS[depth % 2], "ec": "#48607c", "lw": 0.9}
                axes.text(*where[name], text, ha="center", va="center", fontsize=10, bbox=box, zorder=2)
        figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
        plt.close(figure)


if __name__ == "__main__":
    draw(PICTURE)
