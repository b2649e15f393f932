"""One list of inheritance for the search, and one for all that is compared at the end, through whole runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from right_answers import share_right
from tiny import Convolutions, pictures
from torch import nn

import autoprune
from autoprune.config.job import Job, VerdictOptions
from autoprune.data import splits_from
from autoprune.errors import ConfigError
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.importance.members import rank_channels
from autoprune.inherit import INHERITANCE
from autoprune.inherit.base import Inheritance, Statistics
from autoprune.pipeline.fingerprints import job_fingerprint
from autoprune.registry import Part
from autoprune.space.cutting.cut import Cut
from autoprune.space.groups import Widths
from autoprune.tasks.callable import CallableTask

CPU = torch.device("cpu")


class Recorded(Inheritance):
    """Notes every network that it is applied to; changes nothing."""

    seen: ClassVar[list[tuple[str, Widths]]] = []

    def __init__(self, *, where: str = "search") -> None:
        self.where = where

    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> None:
        Recorded.seen.append((self.where, cut.widths))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Widths]]:
    monkeypatch.setitem(INHERITANCE._table, "recorded", Part(f"{__name__}:Recorded", "a test", "Here."))
    monkeypatch.setattr(Recorded, "seen", [])
    return Recorded.seen


def searched(run_dir: Path, **changes: Any) -> autoprune.SearchResult:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Convolutions()
    verdict = {"seeds": 1, "fine_tune_epochs": 1, "random_candidates": 1, "protocols": ["fine_tune", "scratch_e"]}
    given: dict[str, Any] = {
        "constraints": {"flops": "60%"},
        "data": splits_from((pictures(160, 0), pictures(48, 1), pictures(300, 2))),
        "trained": False,
        "training": {"epochs": 1, "batch_size": 64, "lr": 0.1},
        "trials": 2,
        "controller": "random",
        "device": "cpu",
        "run_dir": run_dir,
        "progress": "silent",
        "verdict": verdict | changes.pop("verdict", {}),
    }
    return autoprune.search(model, torch.zeros(1, 1, 8, 8), **(given | changes))


def test_every_arm_starts_from_the_list_of_the_verdict_and_candidates_from_that_of_the_search(
    tmp_path: Path, recorded: list[tuple[str, Widths]]
) -> None:
    final = [{"name": "recorded", "settings": {"where": "final"}}, "bn_recalibration"]
    result = searched(tmp_path / "run", inherit=["recorded", "bn_recalibration"], verdict={"inherit": final})
    arms = {arm.name: arm.widths for arm in result.record.arms}
    assert {"winner", "uniform_all", "uniform_inner"} <= set(arms)
    at_the_end = [widths for where, widths in recorded if where == "final"]
    assert all(at_the_end.count(widths) >= 2 for widths in arms.values())  # scored, and fine-tuned
    assert {trial.widths for trial in result.record.trials} <= {
        widths for where, widths in recorded if where == "search"
    }


def test_without_a_list_of_its_own_the_verdict_has_that_of_the_search(
    tmp_path: Path, recorded: list[tuple[str, Widths]]
) -> None:
    result = searched(tmp_path / "run", inherit=["recorded", "bn_recalibration"])
    assert {where for where, _ in recorded} == {"search"}
    counts = [sum(widths == arm.widths for _, widths in recorded) for arm in result.record.arms]
    assert min(counts) >= 2  # scored, and fine-tuned


def test_without_finals_the_exported_network_is_the_one_that_was_scored_at_the_end(tmp_path: Path) -> None:
    chosen = ["reuse", "mean_fold", "bn_recalibration"]
    plain = searched(tmp_path / "plain", verdict={"seeds": 0}, seed=1)
    result = searched(tmp_path / "run", verdict={"seeds": 0, "inherit": chosen}, seed=1)
    network = autoprune.load(tmp_path / "run" / "export", model=Convolutions())
    validation = splits_from((pictures(160, 0), pictures(48, 1), pictures(300, 2))).validation
    assert share_right(network, validation) == result.record.winner.search_score
    other = autoprune.load(tmp_path / "plain" / "export", model=Convolutions())
    own, base = network.state_dict(), other.state_dict()
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(own.values(), base.values(), strict=True))
    assert [t.score for t in plain.record.trials] == [t.score for t in result.record.trials]  # the search is the same


def test_a_list_that_cannot_be_used_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mean_fold must stand before bn_recalibration"):
        searched(tmp_path / "run", verdict={"inherit": ["bn_recalibration", "mean_fold"]})
    assert not (tmp_path / "run").exists()


def test_a_job_without_a_list_for_the_verdict_is_written_as_before() -> None:
    assert "inherit" not in VerdictOptions().model_dump(mode="json")
    chosen = VerdictOptions.model_validate({"inherit": ["merge"]})
    assert VerdictOptions.model_validate(chosen.model_dump(mode="json")) == chosen


def factory(**lists: Any) -> CandidateFactory:
    model = Convolutions().eval()
    space = autoprune.trace(model, torch.zeros(1, 1, 8, 8)).search_space
    task = CallableTask(lambda network: 0.0, None, data=[torch.randn(8, 1, 8, 8)], device=CPU)
    return CandidateFactory(model, space, rank_channels(model, space, "l2"), task, 1, **lists)


def test_a_training_goes_on_from_sliced_weights_where_the_list_only_recalibrates() -> None:
    made = factory(inherit=("bn_recalibration",))
    widths = made.space.uniform(0.5)
    plain, start = made.candidate(widths).state_dict(), made.heirs("training")(widths).state_dict()
    assert all(torch.equal(tensor, start[name]) for name, tensor in plain.items())
    recalibrated = made.heirs("final")(widths).state_dict()
    assert any(not torch.equal(tensor, recalibrated[name]) for name, tensor in plain.items())
    asked_for = factory(final_inherit=("bn_recalibration",)).heirs("training")(widths).state_dict()
    assert any(not torch.equal(tensor, asked_for[name]) for name, tensor in plain.items())


def test_calibration_batches_of_the_evaluator_hold_wherever_a_list_does_not_say() -> None:
    settings = [{"name": "bn_recalibration", "settings": {"batches": 3}}]
    made = factory(inherit=("merge", "bn_recalibration"), final_inherit=tuple(settings)).calibrated(7)
    assert [getattr(part, "settings", None) for part in made.inherit] == [None, {"batches": 7}]
    assert made.final_inherit == tuple(settings)
    assert made.calibrated(9) is made


def test_without_a_list_candidates_are_refitted_at_once_and_finals_layer_by_layer() -> None:
    made = factory()
    widths = made.space.uniform(0.5)
    lists = {
        "search": ["least_squares", "bn_recalibration"],
        "final": ["sequential_least_squares", "bn_recalibration"],
        "training": ["sequential_least_squares"],
    }
    for use, names in lists.items():
        asked = replace(made, inherit=tuple(names)).heirs("search")(widths).state_dict()
        assert all(map(torch.equal, made.heirs(use)(widths).state_dict().values(), asked.values()))
    blind = replace(made, task=CallableTask(lambda network: 0.0, None, device=CPU))
    plain = made.candidate(widths).state_dict()
    assert all(map(torch.equal, blind.heirs("final")(widths).state_dict().values(), plain.values()))


def test_a_run_that_began_when_recalibration_was_usual_goes_on_with_it(tmp_path: Path) -> None:
    given = {"trials": 3, "seed": 1, "verdict": {"seeds": 0}}
    earlier = {"inherit": ["bn_recalibration"], "allocations": ["global_threshold"]}
    whole = searched(tmp_path / "whole", **given, **earlier)
    run = tmp_path / "run"
    searched(run, **given, **earlier)
    (run / "result.json").unlink()
    record = json.loads((run / "run.json").read_text())
    del record["sha256"], record["files"]  # it had no checksums
    began = job_fingerprint(Job.model_validate(_without_inheritance(yaml.safe_load((run / "job.yaml").read_text()))))
    record["fingerprints"]["job"], record["job_format"] = began, 2
    (run / "run.json").write_text(json.dumps(record))
    lines = (run / "journal.log").read_text().splitlines(keepends=True)
    (run / "journal.log").write_text("".join(lines[: len(lines) // 2]))
    resumed = searched(run, **given, resume=True)
    assert [t.score for t in resumed.record.trials] == [t.score for t in whole.record.trials]


def _without_inheritance(job: dict[str, Any]) -> dict[str, Any]:
    del job["search"]["inherit"]  # it was left out where nobody set it
    return job


def test_a_method_that_needs_data_says_so_before_a_run_begins(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reuse needs calibration inputs, and there are none"):
        autoprune.search(
            Convolutions(),
            torch.zeros(1, 1, 8, 8),
            constraints={"flops": "60%"},
            score_func=lambda network: 0.0,
            inherit=["reuse"],
            run_dir=tmp_path / "run",
            progress="silent",
        )
    assert not (tmp_path / "run").exists()
