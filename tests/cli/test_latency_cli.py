from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autoprune.cli.latency import app
from autoprune.cost.latency.profile_files import read_profile
from autoprune.errors import AutopruneError, ConfigError

MODEL = ["tiny:Convolutions", "--arg", "in_channels=3", "--input", "1,3,16,16"]


def run(*arguments: str) -> str:
    """What the command prints; its errors are raised."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profiles") / "tiny.json"
    facts = json.loads(run("profile", *MODEL, "--out", str(path), "--networks", "10", "--json"))
    assert facts["file"] == str(path)
    assert facts["kernels"] >= 4
    assert facts["networks"] == 11
    assert facts["conditions"] == {**facts["conditions"], "threads": 1, "backend": "torch", "batch": 1}
    assert 0 <= facts["error"]["median"] < 1
    return path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["profile", *MODEL, "--out", "a" * 5000], "cannot be looked up: File name too long; give another path"),
        (["profile", *MODEL, "--add-to", "loop"], "loop cannot be looked up: Too many levels of symbolic links"),
        (["profile", *MODEL, "--out", "pipe"], "pipe is no regular file; give a new file, or one to replace"),
        (["profile", *MODEL, "--out", "p.json", "--networks", "9" * 30], "at most 10,000 networks are measured"),
        (["profile", *MODEL, "--out", "p.json", "--seed", "-1"], "seed must be at least 0 and below 2.63, got -1"),
        (["measure", *MODEL, "--repeats", "9" * 30], "repeats must be at most 1,000,000, got 999"),
        (["measure", *MODEL, "--widths", "a" * 5000], "--widths 'aaa"),
    ],
)
def test_nonsense_is_refused_before_anything_is_measured(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("loop").symlink_to("loop")
    with pytest.raises(ConfigError, match=told) as caught:
        run(*arguments)
    assert len(str(caught.value)) < 500
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "loop"}
    assert Path("pipe").is_fifo()


def test_a_prediction_adds_up(profile: Path) -> None:
    told = json.loads(run("predict", *MODEL, "--profile", str(profile), "--widths", "uniform:0.5", "--json"))
    assert sum(told["layers"].values()) + told["rest"] == pytest.approx(told["latency_ms"])
    assert {"conv1", "norm1", "conv2", "norm2", "head"} <= told["layers"].keys()
    assert 0 < told["latency_ms"] <= told["full_latency_ms"]
    table = run("predict", *MODEL, "--profile", str(profile))
    assert "conv2" in table
    assert "100.0% of the full network" in table.replace("\n", " ")
    assert "median error" in table.replace("\n", " ")


def test_a_measurement_states_its_conditions() -> None:
    told = json.loads(run("measure", *MODEL, "--widths", "uniform:0.5", "--threads", "1", "--json"))
    assert told.keys() == {"uniform:0.5", "full"}
    assert told["full"]["ms"] > 0
    everything = json.loads(run("measure", *MODEL, "--widths", "uniform:1.0", "--json"))
    assert everything["uniform:1.0"] == everything["full"]
    assert told["full"]["conditions"]["backend"] == "torch"
    table = run("measure", *MODEL).replace("\n", " ")
    assert "repeats in turns" in table
    assert "1 thread" in table


def test_a_profile_is_extended_in_place(profile: Path) -> None:
    before = read_profile(profile)
    wide = ["tiny:Convolutions", "--arg", "in_channels=1", "--input", "1,1,16,16"]
    words = shlex.join([*wide, "--add-to", str(profile)])
    told = re.escape(f"made for {shlex.join(MODEL)}, lacks 1 kernels")
    with pytest.raises(AutopruneError, match=rf"{told}.*add them with: autoprune latency profile {re.escape(words)}$"):
        run("predict", *wide, "--profile", str(profile))
    text = " ".join(run("profile", *shlex.split(words), "--networks", "0").split())
    assert "kernels on" in text
    assert shlex.join(wide) in text
    assert read_profile(profile).made_for == (shlex.join(MODEL), shlex.join(wide))
    after = read_profile(profile)
    assert len(after.tables) == len(before.tables) + 1
    assert after.networks == before.networks
    assert "ms" in run("predict", *wide, "--profile", str(profile))
    told = re.escape("cannot be added to: its conditions are torch, cpu, 1 thread")
    with pytest.raises(ConfigError, match=f"{told}.* here torch, cpu, 2 threads"):
        run("profile", *wide, "--add-to", str(profile), "--threads", "2")


@pytest.mark.parametrize("given", [[], ["--out", "a.json", "--add-to", "b.json"]])
def test_one_file_is_written(given: list[str]) -> None:
    with pytest.raises(ConfigError, match="give either --out FILE for a new profile or --add-to FILE"):
        run("profile", *MODEL, *given)


def test_where_nothing_can_be_written_nothing_is_measured(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no folder .*; give a file in a folder that exists"):
        run("profile", *MODEL, "--out", str(tmp_path / "no" / "p.json"))
    with pytest.raises(ConfigError, match=r"is a folder; name a file in it"):
        run("profile", *MODEL, "--out", str(tmp_path))


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, autoprune.cli.latency; print([m for m in ('torch', 'numpy', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
