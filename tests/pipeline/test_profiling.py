"""A search whose device profile lacks kernels says the whole command that adds them."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import Convolutions, pictures, write_job

import autoprune
from autoprune.config.job import load_job
from autoprune.cost.latency.device_profile import Conditions, DeviceProfile, cpu_name
from autoprune.cost.latency.profile_files import profile_fingerprint, read_profile, write_profile
from autoprune.errors import BudgetError
from autoprune.pipeline import driver
from autoprune.pipeline.profiling import input_text

EMPTY = DeviceProfile(Conditions(batch=1), cpu_name(), {}, "2027-01-01")


def command_of(error: BaseException) -> list[str]:
    return shlex.split(str(error).partition("add them with: ")[2].partition(" (")[0])


def test_a_job_file_gives_model_arguments_inputs_space_and_profile(tmp_path: Path) -> None:
    write_profile(EMPTY, tmp_path / "device.json")
    (tmp_path / "every.yaml").write_text("divisor: 2\n")
    changes = {
        "constraints": {"latency_ms": "50%"},
        "metrics": {"latency_ms": {"profile": "device.json"}},
        "space": "every.yaml",
    }
    job = load_job(write_job(tmp_path / "job.yaml", changes))
    with pytest.raises(BudgetError, match=r"lacks \d+ kernels of this network") as raised:
        driver.start_job(job, tmp_path / "run", progress="silent")
    found = command_of(raised.value)
    assert found[:4] == ["autoprune", "latency", "profile", job.model.factory]
    given = dict(zip(found[4::2], found[5::2], strict=True))
    arguments = [f"{name}={value}" for name, value in job.model.arguments.items()]
    assert [value for name, value in zip(found[4::2], found[5::2], strict=True) if name == "--arg"] == arguments
    assert given["--input"] == "1,1,16,16"
    assert given["--space"] == str(tmp_path / "every.yaml")
    assert given["--add-to"] == str(tmp_path / "device.json")
    assert not (tmp_path / "run").exists()


def test_a_model_object_needs_a_function_that_returns_it(tmp_path: Path) -> None:
    write_profile(EMPTY, tmp_path / "device.json")
    with pytest.raises(BudgetError, match="module:factory is a function of yours that returns this model") as raised:
        autoprune.search(
            Convolutions(classes=4),
            torch.zeros(1, 1, 8, 8),
            data=(pictures(8, 0), pictures(8, 1)),
            constraints={"latency_ms": "50%"},
            metrics={"latency_ms": {"profile": str(tmp_path / "device.json")}},
            device="cpu",
            run_dir=tmp_path / "run",
        )
    assert command_of(raised.value) == [
        *("autoprune", "latency", "profile", "module:factory", "--input", "1,1,8,8"),
        *("--add-to", str(tmp_path / "device.json")),
    ]


def test_inputs_are_written_as_the_command_reads_them() -> None:
    ids, mask = torch.tensor([[3, 4, 1]]), torch.ones(1, 3, dtype=torch.int64)
    assert input_text(ids) == "ids:1,3"
    assert input_text((torch.zeros(1, 2), ids)) == "1,2;ids:1,3"
    assert input_text({"input_ids": ids, "attention_mask": mask}) == "input_ids=ids:1,3;attention_mask=ones:1,3"


def test_a_profile_names_what_it_was_made_for_and_older_ones_keep_their_fingerprint(tmp_path: Path) -> None:
    assert "made_for" not in EMPTY.to_json()
    named = replace(EMPTY, made_for=("resnet20 --input 1,1,8,8",))
    write_profile(named, tmp_path / "device.json")
    assert read_profile(tmp_path / "device.json").made_for == named.made_for
    assert profile_fingerprint(EMPTY) != profile_fingerprint(named)
    job = write_job(
        tmp_path / "job.yaml",
        {"constraints": {"latency_ms": "50%"}, "metrics": {"latency_ms": {"profile": "device.json"}}},
    )
    with pytest.raises(BudgetError, match=re.escape("made for resnet20 --input 1,1,8,8, lacks")):
        driver.start_job(load_job(job), tmp_path / "run", progress="silent")
