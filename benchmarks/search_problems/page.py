"""The results as tables, claims and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from search_problems.problem import Problem
from search_problems.replay import Replay

OURS = "surrogate"
Results: TypeAlias = Mapping[str, Mapping[str, Sequence[Replay]]]
"""Problem -> controller -> one replay per repetition."""


def table(problem: Problem, replays: Mapping[str, Sequence[Replay]], evaluations: Sequence[int]) -> str:
    """A Markdown table: gain over uniform by controller and number of evaluations, mean ± standard error."""
    head = ["controller", *(f"{n}: highest score" for n in evaluations), *(f"{n}: posterior mean" for n in evaluations)]
    lines = [f"| {' | '.join([*head, 'ms per trial'])} |", f"|{'---|' * (len(head) + 1)}"]
    for name, runs in replays.items():
        cells = [_mean(r.best[n] for r in runs) if n in runs[0].best else "" for n in evaluations]
        cells += [_mean(r.modelled[n] for r in runs) if n in runs[0].best else "" for n in evaluations]
        lines.append(f"| {name} | {' | '.join(cells)} | {np.mean([r.milliseconds for r in runs]):.1f} |")
    return "\n".join([f"Ceiling: {problem.ceiling:+.3f} {problem.unit}.", "", *lines])


def without_luck(replays: Mapping[str, Sequence[Replay]], evaluations: Sequence[int]) -> str:
    """A Markdown table: the same answers by the model of all rows, mean ± standard error."""
    head = ["controller", *(f"{n}: highest score" for n in evaluations), *(f"{n}: posterior mean" for n in evaluations)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, runs in replays.items():
        cells = [
            _mean(r.expected[n][i] for r in runs) if n in runs[0].best else "" for i in (0, 1) for n in evaluations
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def claims(replays: Mapping[str, Sequence[Replay]], evaluations: Sequence[int]) -> list[str]:
    """How far the default controller's answer lies above every other's, with standard errors of the difference."""
    lines = []
    for name, runs in replays.items():
        for n in evaluations if name != OURS and OURS in replays else ():
            if n not in runs[0].best:
                continue
            pairs = list(zip(replays[OURS], runs, strict=False))  # the same noise in both
            against = {
                "its highest score": np.array([a.modelled[n] - b.best[n] for a, b in pairs]),
                "the posterior mean of its trials": np.array([a.modelled[n] - b.modelled[n] for a, b in pairs]),
            }
            told = "; ".join(f"{d.mean():+.3f} against {what} ({_errors(d):+.1f} SE)" for what, d in against.items())
            lines.append(f"- {n} evaluations, {OURS} − {name}: {told}")
    return lines


def beaten(replays: Mapping[str, Sequence[Replay]], name: str, n: int) -> float:
    """Standard errors by which the default controller's answer is better than the other controller's own."""
    pairs = zip(replays[OURS], replays[name], strict=False)
    return _errors(np.array([a.modelled[n] - b.best[n] for a, b in pairs]))


def picture(results: Results, problems: Mapping[str, Problem], path: Path) -> None:
    """Regret (ceiling less gain) over evaluations, one panel per problem."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(3, len(results))
    rows = -(-len(results) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5.2 * columns, 3.8 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(results) :]:
        axis.set_axis_off()
    for axis, (name, replays) in zip(axes.flat, results.items(), strict=False):
        for controller, runs in replays.items():
            at = sorted(runs[0].modelled)
            chosen = [[(r.modelled if controller == OURS else r.best)[n] for r in runs] for n in at]
            regret = problems[name].ceiling - np.mean(chosen, axis=1)
            error = np.std(chosen, axis=1, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else 0.0
            ours = controller == OURS
            axis.errorbar(at, regret, yerr=error, label=controller, lw=2.4 if ours else 1.0, zorder=3 if ours else 2)
        axis.set(title=name, xlabel="evaluations", ylabel=f"regret ({problems[name].unit})", xscale="log")
        axis.set_xticks(at, [str(n) for n in at])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _mean(values: Sequence[float] | object) -> str:
    array = np.array(list(values))  # type: ignore[call-overload]
    error = array.std(ddof=1) / np.sqrt(len(array)) if len(array) > 1 else np.nan
    return f"{array.mean():+.3f} ± {error:.3f}"


def _errors(differences: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    spread = differences.std(ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else np.nan
    return float(differences.mean() / spread) if spread else 0.0
