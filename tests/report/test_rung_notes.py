"""What a report says of a search in rungs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from example_runs import example_run

from autoprune.controllers.base import Trial, TrialState
from autoprune.progress.base import result
from autoprune.report.html import write_html
from autoprune.report.rungs import rung_notes
from autoprune.texts import ScoreScale
from autoprune.verdict.record import RunRecord

STEPS = ["zero_cost", {"name": "scratch", "settings": {"epochs": 3}}]


def in_rungs() -> RunRecord:
    """Every third candidate of the search ended at the first rung, with a score of another scale."""

    def ended(trial: Trial) -> Trial:
        rung = (0.5, 1e6 + trial.number)
        if trial.state is TrialState.PRUNED or (
            trial.score is not None and trial.number > 12 and trial.number % 3 == 0
        ):
            state = TrialState.PRUNED
            return replace(trial, state=state, score=rung[1], fidelity=0.5, partial=(rung,), rungs=True)
        return replace(trial, partial=(rung,), rungs=True, fidelity=1.0)

    record = example_run(searched=30)
    search = {**record.job.get("search", {}), "evaluator": {"name": "chain", "settings": {"steps": STEPS}}}
    return replace(record, trials=tuple(map(ended, record.trials)), job={**record.job, "search": search})


def test_how_many_reached_each_rung_is_told() -> None:
    record = in_rungs()
    stopped = sum(trial.at_rung for trial in record.trials)
    complete = sum(trial.state is TrialState.COMPLETE for trial in record.trials)
    assert stopped >= 5
    reached, agreement = rung_notes(record)
    assert f"{len(record.trials)} by zero_cost, {complete} by scratch, whose scores count" in reached
    assert "zero_cost with scratch " in agreement
    assert f"({complete} candidates)" in agreement
    assert list(rung_notes(example_run(searched=5))) == []


def test_steps_of_one_name_are_told_apart() -> None:
    proxy = {"name": "zero_cost", "settings": {"proxy": "synflow"}}
    for steps, told in (
        (["inherited", {"name": "inherited", "settings": {"validation_limit": 9}}], "inherited (step 1)"),
        ([proxy, "inherited"], "zero_cost (synflow)"),
        (["zero_cost", proxy], "by zero_cost,"),
    ):
        record = in_rungs()
        evaluator = {"name": "chain", "settings": {"steps": steps}}
        job = {**record.job, "search": {**record.job["search"], "evaluator": evaluator}}
        assert told in next(iter(rung_notes(replace(record, job=job))))


def test_scores_of_another_scale_have_no_height_in_the_figures_and_no_unit(tmp_path: Path) -> None:
    record = in_rungs()
    page = write_html(record, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "stopped at a rung" in page
    assert "1000000" not in page.replace(",", "").replace("\u202f", "")
    trial = next(trial for trial in record.trials if trial.at_rung)
    assert result(trial, ScoreScale("accuracy", "%")) == "1e+06 at rung 1, where it ended"
