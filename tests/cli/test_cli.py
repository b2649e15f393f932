from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from tiny import write_job

from autoprune import load
from autoprune.cli import main as cli
from autoprune.cli.parts import KINDS

HELPERS = Path(__file__).parents[1] / "helpers"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Call the command line in this process; (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(HELPERS), *sys.path])
    monkeypatch.delenv("AUTOPRUNE_DATA", raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["autoprune", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def shell(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "autoprune.cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.py").symlink_to(HELPERS / "tiny.py")
    done = shell("search", write_job(folder / "job.yaml"), "--run-dir", folder / "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("At 50 % of the FLOPs the search")
    assert f"report: {folder / 'run' / 'report.html'}" in done.stdout
    return folder / "run"


@pytest.mark.parametrize("module", ["autoprune", "autoprune.cli", "autoprune.cli.main"])
def test_python_runs_it_by_any_of_its_names(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", module, "parts", "nonsense"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown kind of part 'nonsense'")


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "{}"],
        ["resume", "{}"],
        ["finish", "{}"],
        ["search", "{}"],
        ["export", "{}", "--to", "x"],
        ["export", "x", "--to", "{}"],
        ["space", "resnet20", "--save", "{}"],
        ["space", "resnet20", "--space", "{}"],
        ["compare", "resnet20", "--to", "{}"],
        ["latency", "predict", "resnet20", "--profile", "{}"],
    ],
)
def test_what_can_be_no_path_is_one_clear_line(arguments: list[str], run: Run, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path, told in (("a" * 5000, "File name too long"), ("loop", "Too many levels of symbolic links")):
        code, out, err = run(*(argument.format(path) for argument in arguments))
        assert (code, out) == (2, "")
        assert f"cannot be looked up: {told}; give another path" in err
        assert len(err.splitlines()) == 1


def test_an_empty_engine_is_not_the_jobs_own(run: Run, tmp_path: Path) -> None:
    code, _, err = run("search", write_job(tmp_path / "job.yaml"), "--run-dir", "run", "--engine", "")
    assert (code, "name: input should be 'local' or 'ray', got ''" in err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_a_space_is_saved_into_files_only(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    code, _, err = run("space", "tiny:Convolutions", "--input", "1,1,8,8", "--no-verify", "--save", "pipe")
    assert (code, "pipe: it is no regular file; give a new file" in err) == (2, True)


@pytest.mark.parametrize("place", ["a" * 5000, "", "nowhere"])
def test_doctor_shows_a_place_that_cannot_be(place: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_DATA", place)
    code, out, _ = run("doctor")
    assert code == 0
    assert ("not set" in out) == (not place)
    assert ("is no folder" in " ".join(out.split())) == bool(place)


def test_a_run_leaves_what_it_promised(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"job.yaml", "run.json", "space.json", "journal.log", "result.json", "report.html", "report.md"} <= names
    assert {p.name for p in (finished / "export").iterdir()} == {"architecture.yaml", "space.json", "model.safetensors"}


def test_every_json_file_is_strict(finished: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    for path in finished.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=refuse)
    comparison = json.loads((finished / "result.json").read_text())["verdict"]["comparisons"][0]
    assert comparison["low"] is comparison["high"] is None, "one seed gives no interval"


def test_resuming_a_finished_run_prints_the_same_verdict(finished: Path, run: Run) -> None:
    verdict = json.loads((finished / "result.json").read_text())["verdict"]["sentence"]
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    code, out, err = run("resume", finished)
    assert (code, err) == (0, "")
    assert out.startswith(verdict)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_the_report_can_be_written_anew(finished: Path, run: Run) -> None:
    page = (finished / "report.html").read_text()
    (finished / "report.html").unlink()
    assert run("report", finished)[0] == 0
    assert (finished / "report.html").read_text() == page


def test_an_export_is_a_network(finished: Path, run: Run, tmp_path: Path) -> None:
    code, out, _ = run("export", finished, "--to", tmp_path / "net")
    assert code == 0
    assert "autoprune.load(" in out
    assert load(tmp_path / "net", packages=["tiny"]).head.out_features == 10
    code, _, err = run("export", finished, "--to", tmp_path / "net")
    assert (code, "is not empty; give a new folder" in err) == (2, True)
    code, _, err = run("export", finished, "--to", tmp_path / "net" / "model.safetensors" / "x")
    assert (code, "cannot be written" in err) == (2, True)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt key": (
        {"search.trails": 3},
        r"unknown key 'search\.trails'\. Did you mean 'trials'\? Allowed here: .*trials",
    ),
    "misspelt section": ({"serach": {}}, "Did you mean 'search'"),
    "missing key": ({"model": None}, "key 'model' is missing"),
    "a value out of range": ({"training.epochs": 0}, r"training\.epochs: .*greater than or equal to 1.* got 0"),
    "unknown controller": ({"search.controller.name": "surogate"}, "Did you mean 'surrogate'"),
    "unknown sampler": ({"search.controller.name": "optuna:TPESamplr"}, "Did you mean 'TPESampler'"),
    "unknown evaluator": ({"search.evaluator": {"name": "scrach"}}, "Did you mean 'scratch'"),
    "unknown criterion": ({"search.criterion": "l7"}, "unknown criterion 'l7'; choose one of l1"),
    "unknown allocation": ({"search.allocations": ["uniform_al"]}, "Did you mean 'uniform_all'"),
    "unknown protocol": ({"verdict.protocols": ["finetune"]}, "Did you mean 'fine_tune'"),
    "unknown data": ({"data.name": "digit"}, "Did you mean 'digits'"),
    "unknown model": ({"model.factory": "resnet21"}, "Did you mean 'resnet20'"),
    "unknown module": ({"model.factory": "no_such_module:net"}, "'no_such_module' was not found; is its folder"),
    "unknown factory": ({"model.factory": "tiny:Convolution"}, "Did you mean 'Convolutions'"),
    "unknown argument": ({"model.arguments": {"clases": 10}}, "Did you mean 'classes'"),
    "unknown setting": (
        {"search.evaluator": {"name": "inherited", "settings": {"calibration_batchs": 3}}},
        "Did you mean 'calibration_batches'",
    ),
    "a criterion without settings": (
        {"search.criterion": {"name": "l2", "settings": {"power": 2}}},
        "criterion 'l2' has no setting 'power'; it has no settings",
    ),
    "a setting of a criterion that is no mapping": (
        {"search.criterion": {"name": "l2", "settings": 2}},
        r"search\.criterion\.settings: .*valid dictionary, got 2",
    ),
    "a misspelt part": (
        {"search.criterion": {"nme": "l2"}},
        r"unknown key 'search\.criterion\.nme'\. Did you mean 'name'",
    ),
    "unknown setting of an allocation": (
        {"search.allocations": ["uniform_all", {"name": "global_threshold", "settings": {"normalize": "l2"}}]},
        "allocation 'global_threshold' has no setting 'normalize'.* Did you mean 'normalise'",
    ),
    "wrong setting of an allocation": (
        {"search.allocations": [{"name": "global_threshold", "settings": {"normalise": "meen"}}]},
        "normalise cannot be 'meen'.* Did you mean 'mean'",
    ),
    "a list as a text": (
        {"search.allocations": [{"name": "global_threshold", "settings": {"normalise": ["mean"]}}]},
        r"global_threshold: normalise cannot be \['mean'\]; choose one of l2, mean, max, none",
    ),
    "unknown setting of a protocol": (
        {"verdict.protocols": [{"name": "fine_tune", "settings": {"lr": 0.1}}]},
        "protocol 'fine_tune' has no setting 'lr'; its settings are lr_share",
    ),
    "wrong setting of a protocol": (
        {"verdict.protocols": ["fine_tune", {"name": "scratch_b", "settings": {"longest": "two"}}]},
        "protocol 'scratch_b': longest must be a number of at least 1, got 'two'",
    ),
    "unknown metric": ({"constraints": {"flop": "50%"}}, "Did you mean 'flops'"),
    "unknown device": ({"device": "tpu"}, "allowed: auto, cpu, cuda"),
    "a device without trainings": ({"device": "meta"}, "'meta' cannot be used; allowed: auto, cpu, cuda"),
    "a factory that raises": (
        {"model.factory": "tiny:broken"},
        r"'tiny:broken' cannot be built: OSError: no disk \(.*tiny\.py:\d+\)\. Correct",
    ),
    "a data function that raises": (
        {"data.name": "tiny:broken"},
        r"'tiny:broken' cannot be loaded: OSError: no disk \(.*tiny\.py:\d+\)\. Correct",
    ),
    "outputs by name": ({"model.factory": "tiny:Named"}, "the model returns dict .*score_func and train_func"),
    "half a batch": (
        {"search.evaluator": {"name": "inherited", "settings": {"calibration_batches": 2.5}}},
        "calibration_batches must be at least 0, a whole number, got 2.5",
    ),
    "a text as a number": (
        {"search.controller": {"name": "optuna:TPESampler", "settings": {"n_startup_trials": "x"}}},
        r"controller 'optuna:TPESampler' fails with settings {'n_startup_trials': 'x'}: TypeError.*Correct",
    ),
    "an endless seed": ({"seed": 2**70}, r"seed: .*less than or equal to"),
    "no ratios": ({"space": {"ratios": []}}, r"ratios: .*at least 1 item"),
    "nothing to choose": ({"space": {"divisor": 1000}}, "cannot be"),
    "no such space file": ({"space": "narrow.yaml"}, r"cannot read narrow\.yaml"),
    "budget too small": (
        {"constraints": {"flops": "0.01%"}},
        "cannot be reached: the smallest network .* raise the limit",
    ),
    "malformed budget": ({"constraints": {"flops": "5O%"}}, "'5O%' is not a limit; allowed: "),
    "a share as a budget": ({"constraints": {"flops": 0.5}}, 'write "50%"'),
    "no data": ({"data.name": "cifar10"}, "AUTOPRUNE_DATA"),
    "data not where they should be": ({"data": {"name": "cifar10", "path": "."}}, "no file 'data_batch_1' .*set path"),
    "a model that cannot be traced": (
        {"model.factory": "tiny:Undecided"},
        "Undecided cannot be traced with this example",
    ),
    "wrong classes": ({"model.arguments": {"classes": 7}}, "7 outputs but the data have 10 classes; set"),
    "wrong channels": ({"model.arguments": {"in_channels": 3}}, "does not run on the data's inputs .*in_channels"),
    "no weights": ({"model.weights": "none.safetensors"}, r"none\.safetensors does not exist"),
    "a storage out of reach": (
        {"search.storage": "sqlite:////no/folder/x.db"},
        "cannot be opened: .*Set search.storage",
    ),
}


def test_a_failing_export_says_no_more_than_its_error(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").symlink_to(HELPERS / "tiny.py")
    done = shell("space", "tiny:Undecided", "--input", "1,1,8,8", cwd=tmp_path)
    assert_one_clear_error(done.returncode, done.stdout, done.stderr, "Undecided cannot be traced")
    assert len(done.stderr.splitlines()) == 1
    assert ".." not in done.stderr


def assert_one_clear_error(code: int, out: str, err: str, message: str) -> None:
    assert code == 2, err
    assert out == ""
    assert err.startswith("error: ")
    assert re.search(message, err, re.DOTALL), err
    assert "Traceback" not in err


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_job_is_one_clear_error_and_nothing_is_written(mistake: str, run: Run, tmp_path: Path) -> None:
    changes, message = MISTAKES[mistake]
    job = write_job(tmp_path / "job.yaml", changes)
    assert_one_clear_error(*run("search", job, "--run-dir", tmp_path / "run"), message)
    assert list(tmp_path.iterdir()) == [job]


def test_missing_data_in_an_empty_folder_are_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("AUTOPRUNE_DATA", str(tmp_path / "data"))
    job = write_job(tmp_path / "job.yaml", {"data.name": "fashion_mnist"})
    assert_one_clear_error(*run("search", job), rf"fashion_mnist: no file .*{tmp_path}/data")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "data", job]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1", "is not valid YAML"),
        ("- 1", "must hold keys and values, got list"),
        ("", "must hold keys and values, got NoneType"),
        (None, "No such file"),
    ],
)
def test_what_is_no_job_file_is_one_clear_error(content: str | None, message: str, run: Run, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "job.yaml").write_text(content)
    assert_one_clear_error(*run("search", "job.yaml"), rf"job\.yaml.*{message}")


def test_a_directory_that_cannot_be_used_is_found_before_any_work(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoprune.pipeline.driver.inputs_of_job", lambda *_: pytest.fail("data were read"))
    job = write_job(tmp_path / "job.yaml")
    for path, message in [
        (job / "run", "cannot be written: .*is a file.* give another"),
        (tmp_path, "in use already; `autoprune resume"),
        (job, "in use already"),
    ]:
        assert_one_clear_error(*run("search", job, "--run-dir", path), message)
    assert list(tmp_path.iterdir()) == [job]


def test_a_directory_nobody_can_write_is_one_clear_error(run: Run, tmp_path: Path) -> None:
    job = write_job(tmp_path / "job.yaml")
    assert_one_clear_error(*run("search", job, "--run-dir", "/proc/none/run"), "run directory /proc/none/run cannot be")


def test_unknown_progress_is_refused_before_a_directory_is_made(run: Run, tmp_path: Path) -> None:
    job = write_job(tmp_path / "job.yaml")
    answer = run("search", job, "--run-dir", tmp_path / "run", "--progress", "plane")
    assert_one_clear_error(*answer, "Did you mean 'plain'")
    assert list(tmp_path.iterdir()) == [job]


def test_training_that_diverges_is_one_clear_error(run: Run, tmp_path: Path) -> None:
    job = write_job(tmp_path / "job.yaml", {"training.lr": 1e6})
    code, _, err = run("search", job, "--run-dir", tmp_path / "run")
    assert code == 2
    assert re.search(r"error: .*(the loss is nan|infinite|inf; ).*lower lr", err)
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["resume", "report", "export", "finish"])
def test_what_is_no_run_is_one_clear_error(command: str, run: Run, tmp_path: Path) -> None:
    options = {"export": ["--to", tmp_path / "net"], "finish": ["--engine", "local"]}.get(command, [])
    assert_one_clear_error(*run(command, tmp_path, *options), rf"{tmp_path} is not a run directory: it holds no")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "name", "content", "message"),
    [
        ("resume", "job.yaml", "name: [", r"cannot be resumed: .*job\.yaml is not valid YAML.*; restore its job\.yaml"),
        ("resume", "job.yaml", "name: x", r"cannot be resumed: .*'model' is missing"),
        ("resume", "run.json", "{", r"run\.json is damaged"),
        ("resume", "run.json", "{}", r"run\.json is damaged"),
        ("report", "result.json", "{}", "is not as it was written; restore it, or `autoprune resume"),
        ("report", "space.json", "{}", "is not as it was written; restore it, or `autoprune resume"),
    ],
)
def test_a_damaged_run_without_copies_is_one_clear_error(
    command: str, name: str, content: str, message: str, finished: Path, run: Run, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    subprocess.run(["cp", "-r", finished, copy], check=True)
    subprocess.run(["rm", "-r", copy / ".copies"], check=True)
    (copy / name).write_text(content)
    assert_one_clear_error(*run(command, copy), message)


@pytest.mark.parametrize("content", ["name: [", "name: x", "", "null"])
def test_a_job_file_of_a_run_that_cannot_be_read_is_put_back(
    content: str, finished: Path, run: Run, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    subprocess.run(["cp", "-r", finished, copy], check=True)
    (copy / "job.yaml").write_text(content)
    code, _, err = run("resume", copy, "--progress", "plain")
    assert (code, err.count("job.yaml is not as it was written: its copy is in its place")) == (0, 1)
    assert (copy / "job.yaml").read_bytes() == (finished / "job.yaml").read_bytes()
    assert (copy / "damaged" / "job.yaml").read_text() == content


def test_an_edited_job_is_not_resumed(finished: Path, run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    subprocess.run(["cp", "-r", finished, copy], check=True)
    write_job(copy / "job.yaml", {"search.trials": 99})
    assert_one_clear_error(*run("resume", copy), "cannot be resumed: job of the run and")


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").symlink_to(HELPERS / "tiny.py")
    job = write_job(tmp_path / "job.yaml", {"search.trials": 5000})
    command = [sys.executable, "-m", "autoprune.cli.main", "search", str(job), "--run-dir", "a run"]
    listening = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a job in the background would not
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=listening) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "a run" / "base.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.count("`autoprune resume 'a run'` goes on") == 2
    assert "Traceback" not in err


def test_errors_look_the_same_from_a_shell(tmp_path: Path) -> None:
    done = shell("search", write_job(tmp_path / "job.yaml", {"sed": 1}), cwd=tmp_path)
    assert_one_clear_error(done.returncode, done.stdout, done.stderr, "Did you mean 'seed'")


def test_the_published_costs_of_resnet56(run: Run) -> None:
    code, out, _ = run("cost", "resnet56", "--input", "1,3,32,32", "--json")
    assert code == 0
    assert json.loads(out).items() >= {"flops": 125747840, "params": 855770}.items()


def test_costs_of_a_network_of_ones_own(run: Run) -> None:
    arguments = ("tiny:Convolutions", "--arg", "classes=4", "--input", "1,1,8,8")
    full = {"flops": 9 * 8 * 16 + 9 * 8 * 12 * 4 + 48, "params": 72 + 16 + 864 + 24 + 52}
    assert json.loads(run("cost", *arguments, "--json")[1]).items() >= full.items()
    half = json.loads(run("cost", *arguments, "--widths", "uniform:0.5", "--json")[1])
    assert half["flops"] == 9 * 4 * 16 + 9 * 4 * 6 * 4 + 24
    code, out, _ = run("cost", *arguments)
    assert code == 0
    assert "One multiply-add is one FLOP" in out


def test_widths_come_from_a_file(run: Run, tmp_path: Path) -> None:
    arguments = ("cost", "tiny:Convolutions", "--input", "1,1,8,8", "--json")
    (tmp_path / "some.yaml").write_text("conv1: 4\n")
    (tmp_path / "all.json").write_text('{"conv1": 4, "conv2": 6}')
    export = {"format": 1, "widths": {"conv1": {"kept": 4, "of": 8}, "conv2": {"kept": 6, "of": 12}}}
    (tmp_path / "architecture.yaml").write_text(json.dumps(export))
    found = {name: json.loads(run(*arguments, "--widths", name)[1]) for name in ("some.yaml", "all.json")}
    assert found["some.yaml"]["widths"] == {"conv1": 4, "conv2": 12}
    assert found["all.json"]["widths"] == {"conv1": 4, "conv2": 6}
    assert json.loads(run(*arguments, "--widths", "architecture.yaml")[1]) == found["all.json"]
    assert json.loads(run(*arguments, "--widths", "uniform:0.5")[1]) == found["all.json"]


def test_the_layers_add_up_to_the_totals(run: Run) -> None:
    found = json.loads(run("cost", "tiny:Convolutions", "--input", "1,1,8,8", "--widths", "uniform:0.5", "--json")[1])
    layers = {layer["layer"]: layer for layer in found["layers"]}
    assert sum(layer["flops"] for layer in layers.values()) == found["flops"]
    assert sum(layer["params"] for layer in layers.values()) == found["params"]
    assert layers["conv2"]["flops"] == 9 * 4 * 6 * 4
    assert layers["norm2"] | {"output_mb": 0} == {"layer": "norm2", "flops": 0, "params": 12, "output_mb": 0}
    assert found["full"]["params"] == 72 + 16 + 864 + 24 + 130


def test_the_controllers_are_listed(run: Run) -> None:
    code, out, _ = run("controllers")
    assert code == 0
    assert {"surrogate", "random", "optuna:SAMPLER"} <= set(out.split())
    assert out == run("parts", "controllers")[1] == run("parts", "controller")[1]
    found = json.loads(run("controllers", "--json")[1])
    assert {"name", "source", "use"} == set(found["controllers"][0])
    assert set(found["settings"]) == {"per", "trust_region"}


def test_parts_of_every_kind_are_listed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = json.loads(run("parts", "--json")[1])
    assert list(listed) == list(KINDS)
    for columns in ("160", "40"):
        monkeypatch.setenv("COLUMNS", columns)
        code, out, _ = run("parts")
        assert code == 0
        assert {row["name"] for rows in listed.values() for row in rows} <= set(out.split())
    assert_one_clear_error(*run("parts", "criterions"), "unknown kind of part 'criterions'.*Did you mean 'criterion'")


def test_doctor_asks_every_data_set(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(data: Path | None) -> str:
        monkeypatch.setenv("COLUMNS", "200")
        if data is None:
            monkeypatch.delenv("AUTOPRUNE_DATA", raising=False)
        else:
            monkeypatch.setenv("AUTOPRUNE_DATA", str(data))
        return next(line for line in run("doctor")[1].splitlines() if "AUTOPRUNE_DATA" in line)

    assert re.search("not set; found: digits, python_manual; not found: fashion_mnist, cifar10", told(None))
    (tmp_path / "raw").mkdir()
    for part in ("train", "t10k"):
        (tmp_path / "raw" / f"{part}-images-idx3-ubyte.gz").touch()
        (tmp_path / "raw" / f"{part}-labels-idx1-ubyte").touch()
    assert re.search("found: digits, fashion_mnist, python_manual; not found: cifar10", told(tmp_path))
    (tmp_path / "raw" / "t10k-labels-idx1-ubyte").unlink()
    assert re.search("not found: fashion_mnist, cifar10", told(tmp_path))
    assert re.search("is no folder.*✗", told(tmp_path / "none"))


def test_the_space_as_json_and_as_tables(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("tiny:Convolutions", "--input", "1,1,16,16")
    space = json.loads(run("space", *arguments, "--json")[1])
    assert [(g["name"], g["width"]) for g in space["groups"]] == [("conv1", 8), ("conv2", 12)]
    assert all(0 < g["flops_share"] <= 1 for g in space["groups"])
    for columns in ("200", "60", "40"):
        monkeypatch.setenv("COLUMNS", columns)
        code, out, _ = run("space", *arguments)
        assert code == 0
        assert max(map(len, out.splitlines())) <= int(columns)
        words = set(re.findall(r"[\w.]+", out))
        assert {"8", "12"} <= words, "numbers stay whole"
        assert {"conv1", "conv2"} <= words, "so do names"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cost", "resnet57"), "Did you mean 'resnet56'"),
        (("cost", "resnet20", "--input", "1,3,x"), "--input '1,3,x': give positive sizes"),
        (("cost", "resnet20", "--arg", "classes"), "--arg 'classes': give KEY=VALUE"),
        (("cost", "resnet20", "--arg", "classes=[1"), r"--arg 'classes=\[1': the value is not valid YAML"),
        (("cost", "resnet20", "--widths", "half"), "--widths 'half': give 'full'"),
        (("cost", "resnet20", "--widths", "uniform:2"), "uniform ratio must be above 0"),
        (("cost", "tiny:Convolutions", "--input", "1,1,8,8", "--widths", "a.yaml"), r"no group 'conv3'.*mean 'conv"),
        (("cost", "tiny:Convolutions", "--input", "1,1,8,8", "--widths", "b.yaml"), "'conv1' cannot be 9 wide"),
        (("cost", "tiny:Convolutions", "--input", "1,1,8,8", "--widths", "c.yaml"), "a width for each group, got list"),
        (("cost", "tiny:Convolutions", "--input", "1,1,8,8", "--widths", "d.yaml"), "cannot be read as YAML"),
        (("cost", "resnet20", "--input", "1,5,32,32"), "cannot be traced .*Check that model"),
        (("space", "tiny:Undecided", "--input", "1,1,8,8"), "Undecided cannot be traced"),
        (("space", "resnet20", "--space", "none.yaml"), r"cannot read none\.yaml"),
    ],
)
def test_mistakes_on_the_command_line(arguments: tuple[str, ...], message: str, run: Run, tmp_path: Path) -> None:
    for name, text in (("a", "conv3: 4"), ("b", "conv1: 9"), ("c", "[4, 6]"), ("d", "{conv1: [")):
        (tmp_path / f"{name}.yaml").write_text(text)
    assert_one_clear_error(*run(*arguments), message)


def test_help_version_and_doctor(run: Run) -> None:
    assert "resume" in run("--help")[1]
    assert run("--version")[1].strip()
    code, out, _ = run("doctor")
    assert code == 0
    assert "AUTOPRUNE_DATA" in out
    assert run("serch")[0] == 2


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = ("torch", "ray", "optuna", "numpy", "scipy", "pydantic", "matplotlib", "sklearn")
    code = f"import sys, autoprune.cli.main; print([name for name in {heavy} if name in sys.modules])"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("COV", "COVERAGE"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


def test_an_interruption_that_a_library_wrapped_is_still_one(tmp_path: Path) -> None:
    def run(error: Exception, *, interrupted: bool) -> None:
        with cli._stoppable(tmp_path):
            error.__context__ = KeyboardInterrupt() if interrupted else None
            raise error

    with pytest.raises(typer.Exit) as ended:
        run(RuntimeError("did not possess lock"), interrupted=True)  # what Optuna's lock makes of it
    assert ended.value.exit_code == 130
    with pytest.raises(RuntimeError, match="its own"):
        run(RuntimeError("its own"), interrupted=False)
