"""The Python door to a comparison of allocations, criteria and inheritance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.api.arguments import SearchArguments
from autoprune.config.parts import ChosenPart
from autoprune.config.space import SpaceOptions
from autoprune.config.training import Recipe
from autoprune.config.validation import validated
from autoprune.files import free_directory
from autoprune.importance.given import named_criterion
from autoprune.pipeline.driver import RUNS
from autoprune.progress.base import Mode
from autoprune.randomness import untouched
from autoprune.space.tracing.program import Example
from autoprune.studies.compare import compare as carry_out
from autoprune.studies.comparison import CompareResult
from autoprune.studies.options import CompareOptions
from autoprune.tasks.base import Task


@untouched()
def compare(
    model: nn.Module,
    example_input: Example,
    *,
    data: object = None,
    budgets: Sequence[float] = (75, 50, 25),
    metric: str = "flops",
    allocations: Sequence[ChosenPart] | None = None,
    criteria: Sequence[ChosenPart | Callable[..., Any]] | None = None,
    inherit: Sequence[Sequence[ChosenPart]] | None = None,
    task: str | Mapping[str, Any] | Task | None = None,
    measure: str | Mapping[str, Any] | None = None,
    score_func: Callable[[nn.Module], float] | None = None,
    trained: bool = True,
    training: Recipe | Mapping[str, Any] | None = None,
    space: SpaceOptions | Mapping[str, Any] | Path | str | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    run_dir: Path | str | None = None,
    engine: str | Mapping[str, Any] = "local",
    progress: Mode = "auto",
) -> CompareResult:
    """Score every allocation with every criterion and every inheritance list under several budgets; nothing is trained.

    Args:
        model: the full network; only read.
        example_input: as for `search`.
        data: as for `search`.
        budgets: percent of the full network.
        metric: what they limit.
        allocations: rules for widths, each a name or {"name": …, "settings": {…}}; None: a set of cheap ones.
        criteria: that rank channels, likewise.
        inherit: lists of methods, each applied in order; an empty list does nothing to the weights.
        task: what networks are for, as for `search`.
        measure: what scores count, as for `search`; "divergence" needs no labels.
        score_func: model -> score, as for `search`.
        trained: the weights of `model` are trained; False trains a copy first.
        training: as for `search`.
        space: width choices and exclusions.
        seed: of everything random.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads; None leaves what is set.
        run_dir: where everything is written; of an unfinished comparison of the same, which then goes on.
        engine: as for `search`.
        progress: "auto", "rich", "plain" or "silent".

    Returns:
        Rows, the best of each budget first; `.best(budget)`, `.sentences`, and pages in `.directory`.

    Raises:
        AutopruneError: one clear message; nothing is written before everything is known to be usable.
    """
    given = {
        "budgets": tuple(budgets),
        "metric": metric,
        "allocations": allocations,
        "criteria": criteria if criteria is None else [named_criterion(given) for given in criteria],
        "inherit": inherit,
    }
    options = validated(CompareOptions, given, "compare")
    arguments = SearchArguments(
        model,
        example_input,
        constraints={metric: f"{options.budgets[0]:g}%"},
        data=data,
        task=task,
        measure=measure,
        score_func=score_func,
        trained=trained,
        space=space,
        training=training,
        verdict={"seeds": 0},
        seed=seed,
        device=device,
        threads=threads,
        engine=engine,
    )
    path = (Path(run_dir) if run_dir is not None else free_directory(RUNS, "compare")).absolute()
    return carry_out(arguments.run_inputs(), options, path, progress=progress)
