from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from autoprune.progress.callbacks import PhaseEnded, TrialEnded
from autoprune.progress.tensorboard import TensorBoard
from autoprune.testing.callbacks import CallbackContract, Make, run_started, trial_ended


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


def told(callback: TensorBoard, folder: Path, trials: Iterable[TrialEnded]) -> dict[str, list[tuple[int, float]]]:
    callback.run_started(run_started(folder))
    callback.phase_ended(PhaseEnded("base network", 1.0))
    for trial in trials:
        callback.trial_ended(trial)
    callback.close()
    return read(folder / "tensorboard")


class TestTensorBoard(CallbackContract):
    @pytest.fixture
    def make(self) -> Make:
        return TensorBoard


def test_each_trial_is_a_point_of_every_curve_that_has_a_value(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    seconds = count(0.0, 3.0)
    first, second, third = trial_ended(0, 50.0), trial_ended(1, None), trial_ended(2, 60.0)
    trials = [replace(first, best=None, busy=4), replace(second, busy=3), replace(third, busy=2)]
    assert told(TensorBoard(clock=lambda: next(seconds)), tmp_path, trials) == {
        "score/trial": [(1, 50.0), (3, 60.0)],
        "score/best": [(3, 60.0)],
        "score/uniform": [(1, 50.0), (2, 50.0), (3, 50.0)],
        "pace/candidates_per_minute": [(1, 20.0), (2, 20.0), (3, 20.0)],
        "pace/workers_busy": [(1, 4.0), (2, 3.0), (3, 2.0)],
        "pace/seconds_per_trial": [(1, 2.0), (2, 2.0), (3, 2.0)],
    }


def test_the_pace_is_that_of_the_last_trials(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    seconds = iter([0.0, 1.0, *(1000.0 + i for i in range(30))])
    trials = (trial_ended(number, 1.0) for number in range(30))
    curves = told(TensorBoard(clock=lambda: next(seconds)), tmp_path, trials)
    assert curves["pace/candidates_per_minute"][-1] == (30, 60.0)


def test_a_resumed_search_adds_points(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    told(TensorBoard(), tmp_path, [trial_ended(0, 50.0)])
    assert told(TensorBoard(), tmp_path, [trial_ended(1, 60.0)])["score/trial"] == [(1, 50.0), (2, 60.0)]


def test_without_tensorboardx_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    callback = TensorBoard()
    callback.run_started(run_started(tmp_path))
    callback.trial_ended(trial_ended(0, 1.0))
    callback.close()
    assert list(tmp_path.iterdir()) == []
