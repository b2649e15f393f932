"""The results as a page and a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from search_problems.channel_table import RedrawnProblem, TableProblem
from search_problems.comparison import difference
from search_problems.problem import Problem
from search_problems.replay import HIGHEST, PROBABLE, Replay

OURS = "surrogate"
Replays: TypeAlias = Mapping[str, Sequence[Replay]]
"""Controller -> one replay per repetition."""


def section(problem: Problem, replays: Replays, evaluations: Sequence[int]) -> list[str]:
    """The paragraphs about one problem."""
    repeats = len(next(iter(replays.values())))
    parts = [
        f"## {problem.name[0].upper()}{problem.name[1:]}",
        f"Ceiling: {problem.ceiling:+.3f} {problem.unit}. {repeats} repetitions.",
        *_about(problem),
        _gains(replays, evaluations),
    ]
    if OURS in replays and len(replays) > 1:
        parts += [_explained(problem), _differences(problem, replays, evaluations)]
    if isinstance(problem, TableProblem):
        parts.append("The same answers by the quadratic model of all rows, uniform's included:")
        parts.append(_expected(replays, evaluations))
    return parts


def row_luck(problem: Problem) -> float:
    """Standard deviation of the luck that a row keeps over all repetitions; 0 where noise is drawn anew."""
    return problem.row_luck if isinstance(problem, TableProblem) else 0.0


def picture(results: Mapping[str, Replays], problems: Mapping[str, Problem], path: Path) -> None:
    """Regret (ceiling less gain) over evaluations, one panel per problem."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(3, len(results))
    rows = -(-len(results) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5.2 * columns, 3.8 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(results) :]:
        axis.set_axis_off()
    colours, lines = plt.get_cmap("tab10").colors, ("-", "--", ":")  # type: ignore[attr-defined]
    for axis, (name, replays) in zip(axes.flat, results.items(), strict=False):
        for index, (controller, runs) in enumerate(replays.items()):
            at = sorted(runs[0].answers)
            ours = controller == OURS
            chosen = np.array([[r.answers[n][PROBABLE if ours else HIGHEST].gain for r in runs] for n in at])
            error = chosen.std(axis=1, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else None
            axis.errorbar(
                at,
                problems[name].ceiling - chosen.mean(axis=1),
                yerr=error,
                label=controller,
                color=colours[index % len(colours)],
                linestyle=lines[index // len(colours) % len(lines)],
                lw=2.6 if ours else 1.1,
                zorder=3 if ours else 2,
            )
        axis.set(title=name, xlabel="evaluations", ylabel=f"regret ({problems[name].unit})", xscale="log")
        axis.set_xticks(at, [str(n) for n in at])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, 2 * columns), frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _about(problem: Problem) -> list[str]:
    """What is to be known of a table before its numbers are read."""
    if isinstance(problem, RedrawnProblem):
        return [
            f"Every repetition trains all rows anew; the model of the table is the truth and judges the answers. It is "
            f"quadratic in log widths, a term that `{OURS}`'s own model has, too."
        ]
    if not isinstance(problem, TableProblem):
        return []
    noise, residual = problem.table.noise(problem.domain), problem.table.residual(problem.domain)
    nothing_left = ": what the model does not say of a row is luck" if residual <= 1.1 * problem.row_luck else ""
    return [
        f"Uniform's own trainings came out {problem.luck:.3f} points below what a quadratic model of all rows says of "
        f"it; every gain, and the ceiling, has this much of luck in it. One training of a row in the budget has a "
        f"standard deviation of {noise:.3f}, so the mean of a row's trainings one of {problem.row_luck:.3f}; the rows' "
        f"means lie {residual:.3f} around the model{nothing_left}."
    ]


def _gains(replays: Replays, evaluations: Sequence[int]) -> str:
    columns = _columns(evaluations)
    rows = {
        name: [
            *(_mean(r.answers[n][answer].gain for r in runs if n in r.answers) for answer, n in columns),
            f"{np.mean([r.milliseconds for r in runs]):.1f}",
        ]
        for name, runs in replays.items()
    }
    return _table(["controller", *(f"{n}: {answer}" for answer, n in columns), "ms per trial"], rows)


def _expected(replays: Replays, evaluations: Sequence[int]) -> str:
    columns = _columns(evaluations)
    rows = {
        name: [_mean(r.answers[n][answer].expected for r in runs if n in r.answers) for answer, n in columns]
        for name, runs in replays.items()
    }
    return _table(["controller", *(f"{n}: {answer}" for answer, n in columns)], rows)


def _explained(problem: Problem) -> str:
    text = f"What `{OURS}` finds above the others: difference, and in brackets how many standard errors it has"
    if row_luck(problem):
        text += (
            ", first those over the repetitions, then those that count the luck of rows, too. Repetitions share the "
            "table: where two controllers often answer with the same few rows, a lucky one among them decides"
        )
    return f"{text}."


def _differences(problem: Problem, replays: Replays, evaluations: Sequence[int]) -> str:
    luck = row_luck(problem)
    columns = _columns(evaluations)
    rows = {}
    for name in (name for name in replays if name != OURS):
        cells = []
        for answer, n in columns:
            if n not in replays[name][0].answers:
                cells.append("")
                continue
            d = difference(replays[OURS], replays[name], n, answer, luck)
            cells.append(f"{d.mean:+.3f} ({d.errors:+.1f}{f', {d.errors_with_luck:+.1f}' if luck else ''})")
        rows[name] = cells
    return _table([f"{OURS} less", *(f"{n}: its {answer}" for answer, n in columns)], rows)


def _columns(evaluations: Sequence[int]) -> list[tuple[str, int]]:
    return [(answer, n) for answer in (HIGHEST, PROBABLE) for n in evaluations]


def _table(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())])


def _mean(values: Iterable[float]) -> str:
    array = np.array(list(values))
    if not len(array):
        return ""
    error = array.std(ddof=1) / np.sqrt(len(array)) if len(array) > 1 else np.nan
    return f"{array.mean():+.3f} ± {error:.3f}"
