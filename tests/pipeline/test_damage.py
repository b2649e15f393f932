"""Files that are lost or damaged after the run wrote them: put back, made again or refused, never used unseen."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Perceptron, perceptron, regression

import autoprune
from autoprune.errors import RunError
from autoprune.files import read_json
from autoprune.pipeline.driver import export_run, write_all_reports
from autoprune.pipeline.phases import base_network as base_phase
from autoprune.trials.run_files import COPIES, FILES, JOURNAL, REPLACED, SEAL, checksum, copy_path, differing, read_run


@pytest.fixture(scope="module")
def model() -> Perceptron:
    return perceptron()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model: Perceptron) -> Path:
    return Path(regression(tmp_path_factory.mktemp("runs") / "run", model).directory)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def outcome(run: Path) -> dict[str, Any]:
    record = json.loads((run / "result.json").read_text())
    for timed in (*record["trials"], *record["finals"], record["base"]):
        del timed["seconds"]
    weights = {path.name: path.read_bytes() for path in run.glob("*.safetensors")}
    return {**record, **weights, "exported": (run / "export" / "model.safetensors").read_bytes()}


def half_zero(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


NAMES = (
    "run.json", "job.yaml", "space.json", "base.json", "base.safetensors", "winner.safetensors", "result.json",
    "report.html", "report.md", "measured_latency.json",
    *(f"{folder}/{name}" for folder in ("export", "arms/uniform_all", "arms/uniform_inner", "arms/random_median")
      for name in ("architecture.yaml", "space.json", "model.safetensors")),
)  # fmt: skip
DAMAGES: tuple[Callable[[Path], None], ...] = (Path.unlink, half_zero, truncated, changed)


def test_every_file_of_a_run_has_its_checksum_in_run_json(finished: Path) -> None:
    written = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    kept = {copy_path(Path(), name).as_posix() for name in NAMES}
    callbacks = {name for name in written if name.startswith("tensorboard/")}
    files = read_run(finished)[FILES]
    assert set(files) == written - {".lock", "journal.log", "run.json"} - kept - callbacks
    assert all(checksum((finished / name).read_bytes()) == known for name, known in files.items())
    assert set(files) | {"run.json"} == set(NAMES)


@pytest.mark.parametrize(("place", "name"), list(enumerate(NAMES)))
def test_resuming_makes_good_what_is_lost_or_damaged(
    run: Path, finished: Path, model: Perceptron, place: int, name: str
) -> None:
    DAMAGES[place % len(DAMAGES)](run / name)
    result = regression(run, model, resume=True)
    assert outcome(run) == outcome(finished)
    assert differing(run) == {}
    assert result.verdict is not None
    assert autoprune.load(run / "export", model=model) is not None


@pytest.mark.parametrize("name", ["winner.safetensors", "base.safetensors"])
@pytest.mark.parametrize("damage", [Path.unlink, half_zero])
def test_a_run_stopped_at_its_end_trains_again_what_is_lost(
    run: Path, finished: Path, model: Perceptron, name: str, damage: Callable[[Path], None]
) -> None:
    (run / "result.json").unlink()
    damage(run / name)
    regression(run, model, resume=True)
    assert outcome(run) == outcome(finished)


def test_a_base_network_that_comes_out_otherwise_is_refused(
    run: Path, model: Perceptron, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "result.json").unlink()
    (run / "base.safetensors").unlink()
    as_bytes = base_phase.weights_as_bytes
    monkeypatch.setattr(base_phase, "weights_as_bytes", lambda network: as_bytes(network.half()))
    with pytest.raises(RunError, match=r"training it again gave another network, .* restore the file, or start a new"):
        regression(run, model, resume=True)


def test_a_report_shows_what_the_run_wrote(run: Path) -> None:
    told: list[str] = []
    (run / "job.yaml").write_text("null\n")
    (run / "space.json").write_bytes((run / "space.json").read_bytes()[:500])
    write_all_reports(run, note=told.append)
    assert "trials: 4" in (run / "report.md").read_text()
    assert len(told) == 2
    assert all("its copy is in its place; as it was it lies in" in line for line in told)
    assert differing(run) == {}
    assert read_run(run)["repaired"] == told


@pytest.mark.parametrize("name", ["result.json", "export/model.safetensors", "export/space.json"])
@pytest.mark.parametrize("damage", [half_zero, changed])
def test_what_has_no_copy_is_refused_by_report_and_export_with_what_to_do(
    run: Path, tmp_path: Path, model: Perceptron, name: str, damage: Callable[[Path], None]
) -> None:
    damage(run / name)
    with pytest.raises(RunError, match=rf"{name} is not as it was written.*`autoprune resume {run}`"):
        export_run(run, tmp_path / "out", model=model)
    assert not (tmp_path / "out").exists()
    if name == "result.json":
        with pytest.raises(RunError, match="is not as it was written"):
            write_all_reports(run)


def test_without_its_copy_a_damaged_run_json_is_refused(run: Path, model: Perceptron) -> None:
    changed(run / "run.json")
    shutil.rmtree(run / COPIES)
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        regression(run, model, resume=True)


def test_a_run_of_an_older_version_is_taken_as_it_is_and_that_is_said_once(
    run: Path, finished: Path, model: Perceptron, capfd: pytest.CaptureFixture[str]
) -> None:
    entries = read_json(run / "run.json")
    for key in (FILES, REPLACED, SEAL):
        entries.pop(key, None)
    (run / "run.json").write_text(json.dumps(entries))
    shutil.rmtree(run / COPIES)
    (run / "result.json").unlink()
    for expected in (1, 0):
        regression(run, model, resume=True, progress="plain")
        assert capfd.readouterr().err.count("before runs kept checksums") == expected
    assert outcome(run) == outcome(finished)
    changed(run / "base.json")
    regression(run, model, resume=True)
    assert differing(run) == {}


def test_a_journal_that_lost_its_end_or_itself_is_told(
    run: Path, finished: Path, model: Perceptron, capfd: pytest.CaptureFixture[str]
) -> None:
    journal = run / "journal.log"
    for left in (9, 0):
        lines, before = journal.read_bytes().splitlines(keepends=True), read_run(run)[JOURNAL]
        (run / "result.json").unlink()
        journal.write_bytes(b"".join(lines[:left])) if left else journal.unlink()
        regression(run, model, resume=True, progress="plain")
        told = f"journal.log has {left} of the {before} lines that it had: what is missing is evaluated again"
        assert told in capfd.readouterr().err
        assert outcome(run) == outcome(finished)


@pytest.mark.parametrize(
    "name", ["run.json", "space.json", "base.safetensors", "winner.safetensors", "model.safetensors", *NAMES[6:9]]
)
def test_whatever_file_meets_a_full_disk_waits_and_says_so(
    tmp_path: Path, model: Perceptron, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    met: list[str] = []

    def full_once(descriptor: int) -> None:
        place = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if place == f".{name}.tmp" and not met:
            met.append(place)
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_once)
    result = regression(tmp_path / "run", model, progress="plain", verdict={"seeds": 1, "protocols": ["fine_tune"]})
    told = capfd.readouterr().err
    assert met
    assert "cannot be written (OSError: [Errno 28] No space left on device); trying again" in told
    assert "can be written again" in told
    assert differing(result.directory) == {}


def test_a_result_does_not_load_a_network_that_was_damaged(run: Path, model: Perceptron) -> None:
    result = regression(run, model, resume=True)
    half_zero(run / "export" / "model.safetensors")
    with pytest.raises(
        RunError, match=r"model\.safetensors is not as it was written: the same search with resume=True"
    ):
        result.model  # noqa: B018 - a property that reads


def test_a_damaged_run_is_left_alone_where_the_call_does_not_fit_it(run: Path) -> None:
    half_zero(run / "winner.safetensors")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    other = perceptron()
    with torch.no_grad():
        other.last.bias += 1
    with pytest.raises(RunError, match="weights of the run and of this call differ"):
        regression(run, other, resume=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
