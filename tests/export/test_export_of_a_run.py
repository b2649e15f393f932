"""Exports of finished runs, by command and from Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny import Convolutions, write_job
from torch import nn

import autoprune
from autoprune.cli import main as cli
from autoprune.config.job import load_job
from autoprune.errors import ConfigError, ExportError, RunError
from autoprune.export.module import PlainModule
from autoprune.export.safetensors import PYTHON_MODEL, loading
from autoprune.pipeline.driver import export_run, start_job
from autoprune.pipeline.inputs import inputs_of_job, job_of_run
from autoprune.verdict.record import read_record

HELPERS = Path(__file__).parents[1] / "helpers"
Here = Callable[..., tuple[int, str]]

MINE = '''
import json
from autoprune.export.base import Exporter, WrittenFiles


class Table(Exporter):
    """Numbers of weights by name, as JSON."""

    source, use = "Doe 2027", "For tables."

    def write(self, source, folder):
        path = folder / "table.json"
        path.write_text(json.dumps({name: tensor.numel() for name, tensor in source.weights.items()}))
        return WrittenFiles((path,))
'''


def command(*arguments: object, cwd: Path, beside: Path = HELPERS) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "autoprune.cli.main", *map(str, arguments)]
    paths = os.pathsep.join(map(str, (beside, HELPERS, *filter(None, [os.environ.get("PYTHONPATH")]))))
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(call, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Here:
    """The command in this process, where a start of another would prove nothing; (exit code, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["autoprune", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capfd.readouterr().err

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    start_job(load_job(write_job(folder / "job.yaml")), folder / "run", progress="silent")
    return folder / "run"


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(HELPERS), *sys.path])


def same_outputs(call: Any, network: nn.Module, side: int = 16) -> bool:
    x = torch.randn(5, 1, side, side, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return torch.allclose(call(x), network(x), rtol=1e-4, atol=1e-6)


def test_several_formats_at_once_by_command(finished: Path, tmp_path: Path, helpers: None) -> None:
    done = command(
        "export",
        finished,
        "--to",
        "net",
        "--format",
        "safetensors, module,torch_export",
        "--package",
        "tiny",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "safetensors: architecture.yaml, space.json, model.safetensors"
    assert re.fullmatch(r"module: module/model\.py, module/model\.safetensors; outputs are PyTorch's to .*", lines[1])
    assert lines[3] == "exported to net; load it with autoprune.load('net', packages=['tiny'])"
    network = autoprune.load(tmp_path / "net", packages=["tiny"])
    assert same_outputs(PlainModule().read(tmp_path / "net"), network)
    assert same_outputs(torch.export.load(tmp_path / "net" / "model.pt2").module(), network)


@pytest.mark.parametrize(
    ("factory", "given", "call"),
    [
        ("resnet20", {}, "autoprune.load('net')"),
        ("timm:create_model", {"trust": True}, "autoprune.load('net')"),
        ("torchvision.models:resnet18", {"packages": ["shop"]}, "autoprune.load('net')"),
        ("shop.nets:Net", {}, "autoprune.load('net', packages=['shop'])"),
        ("shop.nets:Net", {"packages": ["shop.nets"]}, "autoprune.load('net', packages=['shop.nets'])"),
        ("shop.nets:Net", {"trust": True}, "autoprune.load('net', trust=True)"),
        ("torch.nn:Sequential", {}, "autoprune.load('net', trust=True)"),
        (PYTHON_MODEL, {"trust": True}, "autoprune.load('net', model=full_model)"),
    ],
)
def test_an_export_says_the_call_that_loads_it(factory: str, given: Any, call: str, tmp_path: Path) -> None:
    assert loading(tmp_path, shown=Path("net"), **given) == "", "only other formats are there"
    (tmp_path / "architecture.yaml").write_text(yaml.safe_dump({"model": {"factory": factory}}))
    assert loading(tmp_path, shown=Path("net"), **given) == call


def test_every_network_compared_is_exported_with_the_weights_that_were_scored(
    finished: Path, tmp_path: Path, helpers: None, here: Here
) -> None:
    record = read_record(finished)
    task = inputs_of_job(job_of_run(finished)).task
    first = (record.finals[0].protocol, record.finals[0].seed)
    scores = {final.arm: final.score for final in record.finals if (final.protocol, final.seed) == first}
    assert len(record.arms) >= 3
    for arm in record.arms:
        network = autoprune.load(export_run(finished, tmp_path / arm.name, arm=arm.name), packages=["tiny"])
        assert task.score(network, split="test") == pytest.approx(scores[arm.name], abs=1e-4)
    by_command = ("--arm", "uniform_all", "--to", "net", "--format", "module", "--package", "tiny")
    assert here("export", finished, *by_command) == (0, "")
    assert same_outputs(
        PlainModule().read(tmp_path / "net"), autoprune.load(tmp_path / "uniform_all", packages=["tiny"])
    )
    described = yaml.safe_load((tmp_path / "uniform_all" / "architecture.yaml").read_text())
    assert described["arm"] == "uniform_all"
    assert described["costs"]["flops"] == next(a.costs["flops"] for a in record.arms if a.name == "uniform_all")


def without_checksums(run: Path) -> None:
    """As a version wrote it that kept none."""
    entries = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({k: v for k, v in entries.items() if k not in ("files", "sha256")}))


def test_an_arm_that_there_is_not_is_one_clear_error(finished: Path, tmp_path: Path, here: Here) -> None:
    code, err = here("export", finished, "--arm", "unifrom_all", "--to", "net")
    assert code == 2
    told = " ".join(err.split())
    assert "no arm 'unifrom_all'; it has winner, uniform_all, uniform_inner" in told
    assert "Did you mean 'uniform_all'?" in told
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_kept_the_winner_alone_says_so(finished: Path, tmp_path: Path) -> None:
    older = shutil.copytree(finished, tmp_path / "older")
    shutil.rmtree(older / "arms")
    without_checksums(older)
    with pytest.raises(RunError, match=r"did not keep the weights of uniform_all: .*run the job anew"):
        export_run(older, tmp_path / "net", arm="uniform_all")
    assert (export_run(older, tmp_path / "net") / "architecture.yaml").is_file()


def test_code_of_a_run_that_is_not_trusted_is_not_run_by_an_export(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"would run tiny:Convolutions\(.*\)\. It was not run: "):
        export_run(finished, tmp_path / "net", ["module"])
    assert list(tmp_path.iterdir()) == []


def test_what_a_run_writes_itself_is_the_default_format(finished: Path, tmp_path: Path) -> None:
    folder = export_run(finished, tmp_path / "net")
    for name in ("architecture.yaml", "space.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (finished / "export" / name).read_bytes()
    assert len(list(folder.iterdir())) == 3


def test_an_exporter_in_one_file_of_another_package_works_by_command(finished: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "mine-1.0.dist-info").mkdir(parents=True)
    (package / "mine.py").write_text(MINE)
    (package / "mine-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (package / "mine-1.0.dist-info" / "entry_points.txt").write_text("[autoprune.exporters]\ntable = mine:Table\n")
    listed = command("parts", "exporters", "--json", cwd=tmp_path, beside=package)
    rows = json.loads(listed.stdout)["exporters"]
    assert [row["name"] for row in rows] == ["safetensors", "onnx", "torch_export", "transformers", "module", "table"]
    assert rows[-1] == {"name": "table", "source": "Doe 2027", "use": "For tables."}
    done = command("export", finished, "--to", tmp_path / "net", "--format", "table", cwd=tmp_path, beside=package)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["table: table.json", f"exported to {tmp_path / 'net'}"]
    assert json.loads((tmp_path / "net" / "table.json").read_text())["head.bias"] == 10


@pytest.mark.parametrize(
    ("formats", "message"),
    [("onxx", "unknown exporter 'onxx'; .*Did you mean 'onnx'"), (" , ", "give a list of safetensors")],
)
def test_wrong_formats_are_one_clear_error_by_command(
    finished: Path, tmp_path: Path, here: Here, formats: str, message: str
) -> None:
    code, err = here("export", finished, "--to", tmp_path / "net", "--format", formats)
    assert code == 2
    assert re.search(message, " ".join(err.split()))
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_exports_of_older_runs_take_the_inputs_of_their_job(finished: Path, tmp_path: Path, helpers: None) -> None:
    older = shutil.copytree(finished, tmp_path / "older")
    path = older / "export" / "space.json"
    before = json.loads(path.read_text())
    assert before.pop("inputs") == {"tensor": [1, 1, 16, 16], "dtype": "float32"}
    path.write_text(json.dumps(before))
    without_checksums(older)
    folder = export_run(older, tmp_path / "net", ["module"], packages=["tiny"])
    assert same_outputs(PlainModule().read(folder), autoprune.load(finished / "export", packages=["tiny"]))


def test_a_network_searched_from_an_object_is_saved_by_its_result(tmp_path: Path) -> None:
    full = Convolutions()
    x = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    arguments: dict[str, Any] = {
        "constraints": {"flops": "50%"},
        "score_func": lambda network: float(network(x).mean()),
        "trials": 6,
        "run_dir": tmp_path / "run",
        "progress": "silent",
    }
    result = autoprune.search(full, x[:1], **arguments)
    folder = result.save(tmp_path / "net", ["module", "torch_export"])
    assert same_outputs(PlainModule().read(folder), result.model, side=8)
    wider = result.save(tmp_path / "wider", ["module"], example=torch.zeros(2, 1, 16, 12))
    assert PlainModule().read(wider)(torch.zeros(3, 1, 16, 12)).shape == (3, 10)
    with pytest.raises(ValueError, match=r"x is of shape \(3, 1, 8, 8\); this graph takes \(any, 1, 16, 12\)"):
        PlainModule().read(wider)(torch.zeros(3, 1, 8, 8))
    assert export_run(tmp_path / "run", tmp_path / "plain").is_dir()
    with pytest.raises(RunError, match=r"searched from a model object: .*save\(folder, formats="):
        export_run(tmp_path / "run", tmp_path / "other", ["module"])
    with pytest.raises(ExportError, match="holds a set: give tensors"):
        result.save(tmp_path / "other", ["module"], example={"x": {1}})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="formats is 'module'; give a list"):
        result.save(tmp_path / "other", "module")
    assert not (tmp_path / "other").exists()
