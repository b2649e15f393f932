"""Keys set beside a job file, runs that go on, runs that are finished, and what Ctrl-C does on a terminal."""

from __future__ import annotations

import functools
import io
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tiny import write_job

from autoprune.cli import main as cli
from autoprune.cli.interrupt import asking
from autoprune.files import read_json
from autoprune.trials.finishing import REQUEST
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.run_files import read_run
from autoprune.verdict.record import read_record

HELPERS = Path(__file__).parents[1] / "helpers"
Run = Callable[..., tuple[int, str, str]]
PATIENCE = 300.0
SMALL = {"verdict.protocols": ["fine_tune"]}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Call the command line in this process; (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(HELPERS), *sys.path])

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["autoprune", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def begun(run: Run, tmp_path: Path) -> Path:
    """A run that has ended."""
    code, _, err = run("search", write_job(tmp_path / "job.yaml", SMALL), "--run-dir", "begun", "--progress", "silent")
    assert (code, err) == (0, "")
    return tmp_path / "begun"


def job_of(folder: Path) -> dict[str, object]:
    return dict(yaml.safe_load((folder / "job.yaml").read_text()))


def test_keys_are_set_beside_a_job_file(run: Run, tmp_path: Path) -> None:
    job = write_job(tmp_path / "job.yaml", SMALL)
    given = ("--trials", 1, "--seed", 7, "--set", "verdict.seeds=0", "--set", "constraints={flops: 60%}")
    code, _, err = run("search", job, "--run-dir", "set", "--progress", "silent", *given)
    assert (code, err) == (0, "")
    written = job_of(tmp_path / "set")
    assert (written["seed"], written["constraints"]) == (7, {"flops": "60%"})
    record = read_record(tmp_path / "set")
    assert sum(trial.origin == "controller" for trial in record.trials) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--set", "search.trails=5"), "unknown key 'search.trails'. Did you mean 'trials'?"),
        (("--set", "search.trials"), "--set 'search.trials': give KEY=VALUE"),
        (("--trials", "5", "--set", "search.trials=6"), "--trials 5 and --set search.trials=6 contradict each other"),
        (("--seed", "-1"), "seed: input should be greater than or equal to 0, got -1"),
        (("--trials", "0"), "search.trials: input should be greater than or equal to 1, got 0"),
    ],
)
def test_what_cannot_be_set_is_one_clear_error(run: Run, tmp_path: Path, given: tuple[str, ...], said: str) -> None:
    code, out, err = run("search", write_job(tmp_path / "job.yaml"), "--run-dir", "new", *given)
    assert (code, out, err.count("error:")) == (2, "", 1)
    assert said in err
    assert not (tmp_path / "new").exists()


def test_a_run_that_has_ended_goes_on_as_is_said(run: Run, begun: Path) -> None:
    given = ("--set", "verdict.seeds=2", "--trials", "5", "--progress", "silent")
    code, out, err = run("resume", begun, *given)
    assert (code, err) == (0, "")
    assert "(fine-tuned with distillation, 2 seeds)" in out
    record = read_record(begun)
    assert sum(trial.origin == "controller" for trial in record.trials) == 5
    assert record.provenance["continued"]["1"]["changed"] == {"search.trials": "3 → 5", "verdict.seeds": "1 → 2"}
    assert run("resume", begun)[1] == out, "it is only read"

    code, out, err = run("resume", begun, "--set", "constraints.flops=40%", "--progress", "silent")
    assert (code, err) == (0, "")
    assert "At 40 % of the FLOPs" in out
    assert f"report: {begun.parent / 'begun-flops-40' / 'report.html'}" in out

    code, out, err = run("resume", begun, "--set", "training.epochs=9")
    assert (code, out) == (2, "")
    assert "differ (training.epochs: 1 before, 9 now); restore" in err
    assert "What may differ: search.trials, " in err
    code, out, err = run("resume", begun, "--set", "search.trails=9")
    assert (code, out) == (2, "")
    assert "Did you mean 'trials'?" in err
    code, out, err = run("resume", begun, "--trials", 4)
    assert (code, out) == (2, "")
    assert "as 5 were proposed already and stay; give at least 5" in err


def as_before_its_end(run: Path) -> None:
    """run.json knows nothing of a result."""
    with RunDirectory.reopen(run) as directory:
        entries = read_run(run)
        for name in ("result.json", "winner.safetensors", "report.html", "report.md"):
            entries["files"].pop(name)
        directory._write_run(entries)


def test_a_stopped_run_is_finished_and_then_goes_on_with_the_trials_that_were_planned(run: Run, begun: Path) -> None:
    """The run is as one that was killed before its last trial began."""
    lines = (begun / "journal.log").read_text().splitlines(keepends=True)
    whole = [trial.widths for trial in read_record(begun).trials]
    fewer_by_one = len(whole) - 1
    numbers = [json.loads(line).get("user_attrs", {}).get("number") for line in lines]
    last = numbers.index(fewer_by_one)
    (begun / "journal.log").write_text("".join(lines[:last]))
    for name in ("result.json", "winner.safetensors"):
        (begun / name).unlink()
    as_before_its_end(begun)
    code, out, err = run("finish", begun, "--progress", "silent")
    assert (code, err) == (0, "")
    assert out.startswith("At 50 % of the FLOPs")
    fewer = read_record(begun)
    assert len(fewer.trials) == fewer_by_one
    assert fewer.provenance["ended_early"]["why"] == "asked to finish"
    assert run("finish", begun)[1] == out, "one that has ended is only read"
    assert run("resume", begun)[1] == out
    assert run("resume", begun, "--trials", 3, "--progress", "silent")[0] == 0
    assert [trial.widths for trial in read_record(begun).trials] == whole


def test_a_run_at_work_is_asked_to_finish(run: Run, begun: Path) -> None:
    (begun / "result.json").unlink()
    as_before_its_end(begun)
    with RunDirectory.reopen(begun):
        code, out, err = run("finish", begun)
    assert (code, err) == (0, "")
    assert "is at work: its search ends after the evaluations that run now" in out
    assert (begun / REQUEST).is_file()


def test_there_is_nothing_to_finish_where_no_run_is(run: Run, tmp_path: Path) -> None:
    code, out, err = run("finish", tmp_path)
    assert (code, out) == (2, "")
    assert "is not a run directory" in err


@pytest.mark.parametrize(
    ("answers", "stops", "asked"),
    [("f\n", False, True), ("finish\n", False, True), ("s\n", True, False), ("", True, False), ("g\n", False, False),
     ("\nwhat\ngo on\n", False, False)],
)  # fmt: skip
def test_the_first_interruption_asks(tmp_path: Path, answers: str, stops: bool, asked: bool) -> None:
    (tmp_path / "run.json").write_text("{}")
    before, shown, stopped = signal.getsignal(signal.SIGINT), io.StringIO(), False
    try:
        with asking(tmp_path, read=io.StringIO(answers).readline, stream=shown):
            signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        stopped = True
    assert stopped == stops
    assert (tmp_path / REQUEST).exists() == asked
    assert "[f]inish now with the trials so far, [s]top and keep what there is, or [g]o on?" in shown.getvalue()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interruption_stops(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")

    def again() -> str:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it did not stop")

    with pytest.raises(KeyboardInterrupt), asking(tmp_path, read=again, stream=io.StringIO()):
        signal.raise_signal(signal.SIGINT)


def test_before_anything_is_written_an_interruption_stops(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), asking(tmp_path, read=lambda: "g\n", stream=io.StringIO()):
        signal.raise_signal(signal.SIGINT)


def test_on_a_terminal_a_search_is_finished_by_its_answer(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").symlink_to(HELPERS / "tiny.py")
    job = write_job(tmp_path / "job.yaml", {"search.trials": 5000, "verdict.seeds": 0})
    command = [sys.executable, "-m", "autoprune.cli.main", "search", str(job), "--run-dir", "run"]
    ours, theirs = pty.openpty()
    listening = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, text=True, preexec_fn=listening
    ) as process:
        os.close(theirs)
        assert _shown(ours, "no such words", until=lambda: (tmp_path / "run" / "base.safetensors").exists())
        process.send_signal(signal.SIGINT)
        assert _shown(ours, "[g]o on?")
        os.write(ours, b"f\n")
        assert _shown(ours, "report and export follow")
        assert _shown(ours, "no such words", until=lambda: process.poll() is not None)
        out = process.stdout.read() if process.stdout is not None else ""
    assert process.returncode == 0
    assert out.startswith("No final networks were trained")
    assert read_json(tmp_path / "run" / "run.json")["ended_early"]["why"] == "asked to finish"
    assert 3 <= len(json.loads((tmp_path / "run" / "result.json").read_text())["trials"]) < 5000
    os.close(ours)


def _shown(terminal: int, words: str, until: Callable[[], bool] = lambda: False) -> bool:
    """Read what a terminal shows until these words are there, or that is."""
    seen, deadline = "", time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if until():
            return True
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                seen += os.read(terminal, 65536).decode(errors="replace")
            except OSError:  # the other end is closed; the process is about to end
                time.sleep(0.05)
        if words in seen:
            return True
    return False


def test_the_finished_run_of_the_fixture_can_be_copied_and_go_on_there(run: Run, begun: Path, tmp_path: Path) -> None:
    shutil.copytree(begun, tmp_path / "elsewhere")
    assert run("resume", tmp_path / "elsewhere", "--trials", 4, "--progress", "silent")[0] == 0
    assert len(read_record(tmp_path / "elsewhere").trials) == len(read_record(begun).trials) + 1
