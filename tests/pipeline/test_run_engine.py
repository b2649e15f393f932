"""What run.json tells of the engine: its name, and what happened to its workers during this run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from autoprune.pipeline.run_engine import RunEngine
from autoprune.progress.base import SilentProgress
from autoprune.trials.run_directory import RunDirectory


class Recorded:
    """An engine of which only the record is asked."""

    def __init__(self, **happened: int) -> None:
        self.happened = happened

    def record(self) -> dict[str, Any]:
        return {"name": "ray", "workers": 3, **self.happened}


def run_engine(engine: Recorded, directory: RunDirectory) -> RunEngine:
    return RunEngine(cast("Any", engine), cast("Any", SimpleNamespace()), directory, SilentProgress())


def test_what_happened_is_counted_over_all_resumptions_of_this_run_alone(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run") as directory:
        directory.update_run(id="run")
        engine = Recorded(lost_workers=7)  # while it worked for another run
        first = run_engine(engine, directory)
        assert first.record() == {"name": "ray", "workers": 3}
        engine.happened = {"lost_workers": 9, "timed_out": 1}
        assert first.record() == {"name": "ray", "workers": 3, "lost_workers": 2, "timed_out": 1}
        directory.update_run(engine=first.record())
        resumed = run_engine(Recorded(), directory)
        assert resumed.record() == first.record()
        later = Recorded()
        again = run_engine(later, directory)
        later.happened = {"timed_out": 4, "retried": 1}
        assert again.record() == {"name": "ray", "workers": 3, "lost_workers": 2, "timed_out": 5, "retried": 1}
