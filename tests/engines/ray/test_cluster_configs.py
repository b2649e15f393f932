"""The examples of `configs/cluster/`: they parse, they fit what reads them, and mark what is to be changed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from autoprune.cli.main import app

FOLDER = Path(__file__).parents[3] / "configs" / "cluster"
FILES = sorted(FOLDER.iterdir())


def test_there_is_one_for_each_kind_of_cluster() -> None:
    assert {path.name for path in FILES} == {"aws.yaml", "rayjob.yaml", "ray_job_submit.sh", "slurm.sh"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_three_values_to_change_are_marked(path: Path) -> None:
    assert re.findall(r"CHANGE (\d):", path.read_text()) == ["1", "2", "3"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_option_of_ours_exists(path: Path) -> None:
    commands = re.findall(r"\bautoprune (search|resume) ([^\"\n]*)", path.read_text())
    assert commands
    for name, arguments in commands:
        known = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output
        for word in shlex.split(arguments):
            assert not word.startswith("--") or word in known, f"{name} has no {word}"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_valid_bash(path: Path) -> None:
    checked = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_launcher_file_fits_rays_own_schema() -> None:
    ray, jsonschema = pytest.importorskip("ray"), pytest.importorskip("jsonschema")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    launcher: dict[str, Any] = yaml.safe_load((FOLDER / "aws.yaml").read_text())
    jsonschema.validate(launcher, schema)
    assert launcher["head_node_type"] in launcher["available_node_types"]
    assert all("dashboard-host=127.0.0.1" in c for c in launcher["head_start_ray_commands"] if "--head" in c)


def test_the_ray_job_has_what_the_operator_asks_for() -> None:
    job: dict[str, Any] = yaml.safe_load((FOLDER / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"]["entrypoint"].startswith("autoprune search ")
    cluster = job["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    images = {container["image"] for pod in pods for container in pod["spec"]["containers"]}
    assert len(images) == 1, "networks travel as pickles: the same versions everywhere"
    for pod in pods:
        mounted = {mount["name"] for container in pod["spec"]["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
