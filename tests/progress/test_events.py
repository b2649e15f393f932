from __future__ import annotations

import sys
from collections import defaultdict
from itertools import count
from pathlib import Path

import pytest

from autoprune.controllers.base import Trial, TrialState
from autoprune.progress.tensorboard import Events


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Name -> (step, value), as a reader of TensorBoard's format finds them."""
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import masked_crc32c

    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for file in sorted(folder.iterdir()):
        content, place = file.read_bytes(), 0
        while place < len(content):
            length = int.from_bytes(content[place : place + 8], "little")
            data = content[place + 12 : place + 12 + length]
            assert int.from_bytes(content[place + 12 + length : place + 16 + length], "little") == masked_crc32c(data)
            event = event_pb2.Event.FromString(data)
            for value in event.summary.value:
                found[value.tag].append((event.step, value.simple_value))
            place += 16 + length
    return found


def trial(number: int, score: float | None) -> Trial:
    state = TrialState.FAILED if score is None else TrialState.COMPLETE
    return Trial(number, (4,), state, score, seconds=2.0, error=None if score is not None else "no")


def test_each_trial_is_a_point_of_every_curve_that_has_a_value(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    seconds = count(0.0, 3.0)
    with Events(tmp_path / "tensorboard", clock=lambda: next(seconds)) as events:
        events.trial(trial(0, 50.0), None, 50.0, 1, 4)
        events.trial(trial(1, None), None, 50.0, 2, 3)
        events.trial(trial(2, 60.0), 60.0, 50.0, 3, 2)
    assert read(tmp_path / "tensorboard") == {
        "score/trial": [(1, 50.0), (3, 60.0)],
        "score/best": [(3, 60.0)],
        "score/uniform": [(1, 50.0), (2, 50.0), (3, 50.0)],
        "pace/candidates_per_minute": [(1, 20.0), (2, 20.0), (3, 20.0)],
        "pace/workers_busy": [(1, 4.0), (2, 3.0), (3, 2.0)],
        "pace/seconds_per_trial": [(1, 2.0), (2, 2.0), (3, 2.0)],
    }


def test_the_pace_is_that_of_the_last_trials(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    seconds = iter([0.0, *(1000.0 + i for i in range(30))])
    with Events(tmp_path / "tensorboard", clock=lambda: next(seconds)) as events:
        for number in range(30):
            events.trial(trial(number, 1.0), 1.0, 1.0, number + 1, 1)
    assert read(tmp_path / "tensorboard")["pace/candidates_per_minute"][-1] == (30, 60.0)


def test_without_tensorboardx_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with Events(tmp_path / "tensorboard") as events:
        events.trial(trial(0, 1.0), 1.0, 1.0, 1, 1)
    assert not (tmp_path / "tensorboard").exists()
