"""Before the search: the one-shot rules give their widths, with the tables that some of them have measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from torch import nn

from autoprune.files import read_json
from autoprune.pipeline.phases.context import RunContext
from autoprune.pipeline.phases.full_scores import score_fully
from autoprune.pipeline.rules import rule_inputs
from autoprune.space.groups import FloatArray, Widths

_FILE, _PHASE, _SEED = "rules.json", "allocation tables", 4_000_003


@final
@dataclass
class Plan:
    """What a search scores first, and what became of the rules.

    Attributes:
        proposals: (origin, widths), in order.
        skipped: label of a rule that cannot meet the budget -> why.
        evaluations: networks that rules had scored.
    """

    proposals: list[tuple[str, Widths]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    evaluations: int = 0


def planned(run: RunContext, base: nn.Module, scores: Sequence[FloatArray]) -> list[tuple[str, Widths]]:
    """What the search scores first; what rules had scored is on disk, and so is what came of it.

    A resumed run takes the plan as it was: a network that could not be scored then may be now.

    Args:
        run: on an equipped engine.
        base: the base network.
        scores: importances of its channels by the job's criterion.
    """
    if (run.directory / _FILE).is_file():
        return [(origin, tuple(widths)) for origin, widths in read_json(run.directory / _FILE)["plan"]]
    plan, asked = Plan(), set[Widths]()

    def probe(rows: Sequence[Widths]) -> FloatArray:
        asked.update(rows)
        found = score_fully(run, rows, phase=_PHASE, seed=_SEED)
        return np.array([found.get(tuple(row), np.nan) for row in rows])

    def skip(label: str, reason: str) -> None:
        plan.skipped[label] = reason
        run.progress.note(f"allocation {label} is left out: {reason}")

    prepared = run.prepared
    inputs = rule_inputs(prepared.space, base, lambda criterion: prepared.scores(base, criterion=criterion), probe)
    plan.proposals, plan.evaluations = prepared.plan(scores, inputs=inputs, skipped=skip), len(asked)
    if plan.skipped or plan.evaluations:
        run.directory.write_json(_FILE, _written(plan))
        run.directory.update_run(rules={"evaluations": plan.evaluations, "skipped": plan.skipped})
    return plan.proposals


def _written(plan: Plan) -> Mapping[str, Any]:
    rows = [[origin, list(widths)] for origin, widths in plan.proposals]
    return {"plan": rows, "skipped": plan.skipped, "evaluations": plan.evaluations}
