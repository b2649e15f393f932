"""Settings of criteria and protocols, given in a job or in Python, through a whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Perceptron, X, perceptron, regression
from torch import Tensor

import autoprune
from autoprune.config.job import Job
from autoprune.errors import ConfigError
from autoprune.importance import CRITERIA
from autoprune.importance.members import GroupTensors
from autoprune.pipeline.fingerprints import job_fingerprint
from autoprune.registry import Part

REQUIRED: dict[str, Any] = {"model": {"factory": "x"}, "data": {"name": "y"}, "constraints": {"flops": "50%"}}


def powers(tensors: GroupTensors, rng: np.random.Generator, *, power: float = 1.0) -> Tensor:
    return torch.stack([rows.abs().pow(power).sum(dim=1) for rows in tensors.filters]).sum(dim=0)


def backwards(tensors: GroupTensors, rng: np.random.Generator, *, turned: bool) -> Tensor:
    scores = torch.stack([rows.abs().sum(dim=1) for rows in tensors.filters]).sum(dim=0)
    return 1 / (1 + scores) if turned else scores


@pytest.fixture(autouse=True)
def _criteria_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for criterion in (powers, backwards):
        card = Part(f"{__name__}:{criterion.__name__}", "this test", "Here.")
        monkeypatch.setitem(CRITERIA._table, criterion.__name__, card)


def test_plain_names_are_written_as_before_so_that_runs_can_be_resumed() -> None:
    job = Job(**REQUIRED).model_dump(mode="json")
    assert job["search"]["criterion"] == "l2"
    assert job["search"]["allocations"] == ["global_threshold", "stagewise", "isomorphic", "log_width", "erk"]
    assert job["verdict"]["protocols"] == ["fine_tune", "scratch_e"]


def test_a_name_and_a_mapping_without_settings_are_the_same_job() -> None:
    plain = Job(**REQUIRED, search={"criterion": "l1"}, verdict={"protocols": ["fine_tune"]})
    mapped = Job(**REQUIRED, search={"criterion": {"name": "l1"}}, verdict={"protocols": [{"name": "fine_tune"}]})
    set_ = Job(**REQUIRED, search={"criterion": {"name": "l1", "settings": {"power": 2}}})
    assert job_fingerprint(plain) == job_fingerprint(mapped) != job_fingerprint(set_)
    assert Job.model_validate(set_.model_dump(mode="json")) == set_


def test_settings_that_no_file_can_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="settings must be what a job file can hold"):
        regression(tmp_path / "run", perceptron(), criterion={"name": "powers", "settings": {"power": object()}})
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def model() -> Perceptron:
    return perceptron()


def channels(network: Any) -> Tensor:
    return network.first.weight.detach()


def test_a_setting_of_a_criterion_decides_which_channels_stay(model: Perceptron) -> None:
    space = autoprune.trace(model, X[:1])
    widths = space.uniform(0.5)

    def kept(criterion: Any) -> Tensor:
        return channels(space.slice(model, widths, criterion=criterion))

    turned, straight = ({"name": "backwards", "settings": {"turned": flag}} for flag in (True, False))
    assert not torch.equal(kept(turned), kept(straight))
    assert torch.equal(kept("powers"), kept({"name": "powers", "settings": {"power": 1}}))
    assert torch.equal(kept("powers"), kept({"name": "powers"}))


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (
            {"name": "powers", "settings": {"powr": 1}},
            "no setting 'powr'; its settings are power. Did you mean 'power'",
        ),
        (
            {"name": "powers", "settings": {"power": "x"}},
            r"criterion 'powers\(power=\"x\"\)' fails: TypeError.*Correct",
        ),
        ({"name": "powers", "settings": {"rng": 1}}, "no setting 'rng'"),
        ("backwards", "criterion 'backwards' needs the setting 'turned'"),
        ({"settings": {}}, r"key '(search\.criterion\.)?name' is missing"),
        (3, r"criterion: must hold keys \(name, settings\), or be a plain name, got 3"),
    ],
)
def test_wrong_settings_of_a_criterion_are_one_clear_error(
    criterion: Any, message: str, model: Perceptron, tmp_path: Path
) -> None:
    space = autoprune.trace(model, X[:1])
    with pytest.raises(ConfigError, match=message):
        space.slice(model, space.full, criterion=criterion)
    with pytest.raises(ConfigError, match=message):
        regression(tmp_path / "run", model, criterion=criterion)
    assert not list(tmp_path.iterdir())


def test_two_settings_of_one_protocol_are_compared_apart(model: Perceptron, tmp_path: Path) -> None:
    whole = {"name": "fine_tune", "settings": {"distil": False}}
    long = {"name": "scratch_b", "settings": {"longest": 1.0}}
    verdict = {"protocols": ["fine_tune", whole, "scratch_b", long], "seeds": 1, "random_candidates": 1}
    result = regression(tmp_path / "run", model, verdict=verdict)
    labels = ["fine_tune", "fine_tune(distil=false)", "scratch_b", "scratch_b(longest=1.0)"]
    assert list(dict.fromkeys(final.protocol for final in result.record.finals)) == labels
    epochs = {final.protocol: final.epochs for final in result.record.finals}
    assert epochs["scratch_b"] > epochs["scratch_b(longest=1.0)"]
    assert result.verdict is not None
    assert [comparison.protocol for comparison in result.verdict.comparisons] == labels
    assert "fine-tuned with distil=false they are" in result.verdict.sentence
    assert "fine_tune(distil=false)" in (result.directory / "report.md").read_text()
    again = regression(tmp_path / "run", model, verdict=verdict, resume=True)
    assert again.record.finals == result.record.finals
    changed = {"name": "powers", "settings": {"power": 2}}
    with pytest.raises(
        autoprune.AutopruneError, match=r"search\.criterion: l2 before.*\.settings\.power: – before, 2 now"
    ):
        regression(tmp_path / "run", model, verdict=verdict, criterion=changed, resume=True)
