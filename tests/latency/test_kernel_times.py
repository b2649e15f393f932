from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from fake_hardware import KnownTimes
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.cost.latency.device_profile import Conditions, KernelTable
from autoprune.cost.latency.kernels import DeviceKernel, Operand
from autoprune.latency.backends.base import Runner
from autoprune.latency.kernel_times import KernelTimer, needed_sizes

CONVOLUTION = DeviceKernel(
    "conv2d",
    (("groups", 1),),
    (Operand((1, (0, 1), 8, 8), "float32", "batched"), Operand(((1, 1), (0, 1), 3, 3), "float32", "weight")),
    2,
)


def table_of(kernel: DeviceKernel, full: tuple[int, ...], *, passes: int = 1) -> KernelTable | None:
    timer = KernelTimer(KnownTimes(), kernel, full, Conditions(), 0.0)
    for _ in range(passes):
        timer.time()
    return timer.table()


@settings(deadline=None, max_examples=40)
@given(jump=st.integers(2, 120), height=st.floats(0.2, 2.0), full=st.integers(24, 128))
def test_a_jump_is_found_and_straight_parts_need_few_sizes(jump: int, height: float, full: int) -> None:
    allowed = list(range(1, full + 1))

    def time_at(size: int) -> float:
        return size / full + (height if size >= jump else 0.0)

    chosen = needed_sizes(allowed, time_at)
    assert chosen[0] == 1
    assert chosen[-1] == full
    predicted = np.interp(allowed, chosen, [time_at(n) for n in chosen])
    wrong = np.abs(predicted / [time_at(n) for n in allowed] - 1) > 0.1
    assert wrong.sum() <= full // 16
    straight = needed_sizes(allowed, lambda size: size / full)
    assert len(straight) == min(5, full)


def test_few_sizes_are_all_measured() -> None:
    assert needed_sizes([1, 2, 3], lambda size: 1.0) == [1, 2, 3]
    assert needed_sizes([7], lambda size: 1.0) == [7]


def test_a_table_knows_the_kernel_between_its_sizes(known_times: None) -> None:
    table = table_of(CONVOLUTION, (48, 64))
    assert table is not None
    assert table.largest == (48, 64)
    for a, b in itertools.product((1, 7, 20, 21, 33, 48), (1, 13, 64)):
        expected = 1e-6 * a * b * 9 + (0.02 if a > 20 else 0.0)
        assert table([np.array([a]), np.array([b])])[0] == pytest.approx(expected, rel=0.05, abs=1e-4)


def test_aligned_sizes_are_timed_apart(known_times: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KnownTimes, "alignment", 4)

    def kernel(self: object, kernel: DeviceKernel, shapes: list[tuple[int, ...]], conditions: Conditions) -> Runner:
        slow = 2.0 if shapes[1][1] % 4 else 1.0
        return lambda: slow * shapes[1][0] * shapes[1][1]

    monkeypatch.setattr(KnownTimes, "kernel", kernel)
    table = table_of(CONVOLUTION, (16, 16))
    assert table is not None
    times = table([np.array([8.0, 9.0, 12.0, 3.0]), np.array([5.0, 5.0, 8.0, 16.0])])
    np.testing.assert_allclose(times, [40.0, 90.0, 96.0, 96.0])


def test_more_than_two_sizes_are_measured_together(known_times: None, monkeypatch: pytest.MonkeyPatch) -> None:
    concat = DeviceKernel(
        "cat", (("dim", 1),), tuple(Operand((1, (n, 1), 4), "float32", "batched") for n in range(3)), 3
    )

    def kernel(self: object, kernel: DeviceKernel, shapes: list[tuple[int, ...]], conditions: Conditions) -> Runner:
        return lambda: float(sum(shape[1] for shape in shapes))

    monkeypatch.setattr(KnownTimes, "kernel", kernel)
    table = table_of(concat, (8, 16, 24))
    assert table is not None
    elements = concat.elements([np.array([5.0]), np.array([7.0]), np.array([20.0])])
    assert table([elements])[0] == pytest.approx(5 + 7 + 20)


def test_what_cannot_run_alone_has_no_table(known_times: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KnownTimes, "kernel", lambda self, kernel, shapes, conditions: None)
    assert table_of(CONVOLUTION, (8, 8)) is None


def test_the_best_of_several_passes_counts(known_times: None, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    plain = KnownTimes.kernel

    def disturbed(self: KnownTimes, *given: Any) -> Runner | None:
        run, slower = plain(self, *given), rng.choice([1.0, 3.0])
        return run and (lambda: slower * run())

    monkeypatch.setattr(KnownTimes, "kernel", disturbed)
    table = table_of(CONVOLUTION, (16, 16), passes=12)
    assert table is not None
    assert table([np.array([16.0]), np.array([16.0])])[0] == pytest.approx(16 * 16 * 9e-6)


def test_a_pass_tells_how_many_sizes_became_faster(known_times: None, monkeypatch: pytest.MonkeyPatch) -> None:
    timer = KernelTimer(KnownTimes(), CONVOLUTION, (16, 16), Conditions(), 0.0)
    faster, sizes = timer.time()
    assert faster == sizes > 8  # nothing was known before
    assert timer.time() == (0, sizes)
    plain = KnownTimes.kernel

    def faster_by_a_tenth(self: KnownTimes, *given: Any) -> Runner | None:
        run = plain(self, *given)
        return run and (lambda: 0.9 * run())

    monkeypatch.setattr(KnownTimes, "kernel", faster_by_a_tenth)
    assert timer.time() == (sizes, sizes)


def test_what_running_nothing_takes_is_taken_off(known_times: None) -> None:
    timer = KernelTimer(KnownTimes(), CONVOLUTION, (16, 16), Conditions(), 1e-3)
    timer.time()
    table = timer.table()
    assert table is not None
    assert table([np.array([16.0]), np.array([16.0])])[0] == pytest.approx(16 * 16 * 9e-6 - 1e-3)
    assert table([np.array([1.0]), np.array([1.0])])[0] > 0
