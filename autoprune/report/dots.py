"""Points of a figure; many of one series are one path, so that a page of thousands of trials stays small.

A marker of its own for every point takes a hundred bytes and an element of the page; a point of a path takes about 15.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.patches import PathPatch
from matplotlib.path import Path

MANY = 500
"""Points of a series from which on they are one path."""

_POINT = re.compile(r"M (\S+) (\S+) \nL \1 \2 (?:\n|(?=\"))")


def scatter(
    axes: Any,
    x: Sequence[float],
    y: Sequence[float | None],
    *,
    size: float,
    label: str,
    page: str = "white",
    **style: Any,
) -> None:
    """Draw points as `axes.scatter` does, those of a long series as a path of dots.

    Args:
        axes: to draw on.
        x: of each point.
        y: of each point; None: there is no such point.
        size: area in square points.
        label: for the legend.
        page: colour of the page, inside of rings.
        style: of the points, as `scatter` takes it; crosses of a long series become dots, hollow ones rings.
    """
    if len(x) < MANY:
        axes.scatter(x, y, s=size, label=label, **style)
        return
    axes.scatter([], [], s=size, label=label, **style)
    colour = style.get("color") or style["edgecolors"]
    points = np.array([(a, b) for a, b in zip(x, y, strict=True) if b is not None], dtype=np.float64)
    transform = style.get("transform", axes.transData)
    _path(axes, points, size**0.5, color=colour, alpha=style.get("alpha"), transform=transform)
    if style.get("facecolors") == "none":
        _path(axes, points, size**0.5 - 2, color=page, alpha=None, transform=transform)


def _path(axes: Any, points: Any, diameter: float, *, color: Any, alpha: float | None, transform: Any) -> None:
    """Lines of next to no length, whose round caps are the dots."""
    path = Path(np.repeat(points, 2, axis=0), np.tile([Path.MOVETO, Path.LINETO], len(points)))
    path.should_simplify = False
    style = {"edgecolor": color, "alpha": alpha, "linewidth": diameter, "capstyle": "round", "clip_on": True}
    axes.add_patch(PathPatch(path, facecolor="none", transform=transform, zorder=1, **style))
    if transform is axes.transData:
        axes.update_datalim(points)
        axes.autoscale_view()


def shortened(svg: str) -> str:
    """The SVG with the points of long series in as few characters as tenths of a pixel take."""
    return _POINT.sub(lambda found: f"M{float(found[1]):.1f} {float(found[2]):.1f}h.01\n", svg)
