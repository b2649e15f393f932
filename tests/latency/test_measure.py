from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.cost.latency.device_profile import Conditions, cpu_name
from autoprune.errors import ConfigError, EvaluationError, RegistryError
from autoprune.latency import clock as timing
from autoprune.latency import measure as measuring
from autoprune.latency.measure import Latency, measure, measure_many, measure_twice, with_batch
from autoprune.randomness import seeded

X = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))


class Log(list[Any]):
    """Copies of a network write to the same one."""

    def __deepcopy__(self, cache: dict[int, Any]) -> Log:
        return self


class Products(nn.Module):
    """As many matrix products as asked for; notes how it was run."""

    def __init__(self, n: int, log: Log | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(64, 64) for _ in range(n)))
        self.norm = nn.BatchNorm1d(64)
        self.n, self.log = n, log

    def forward(self, x: Tensor) -> Tensor:
        if self.log is not None:
            self.log.append((self.n, self.training, torch.is_inference_mode_enabled(), torch.get_num_threads(), len(x)))
        out: Tensor = self.norm(self.layers(x))
        return out


def test_more_work_takes_longer_and_everything_is_stated() -> None:
    small, large = measure_many([Products(1), Products(60)], X)
    assert small.quiet <= small.quartiles[0] <= small.ms <= small.quartiles[1]
    assert large.ms > 3 * small.ms
    assert small.repeats >= 50
    assert small.machine == cpu_name()
    assert small.versions["torch"].startswith(torch.__version__.split("+")[0])
    told = str(small)
    assert all(part in told for part in ("torch, cpu, 1 thread", "float32", "50 repeats", cpu_name()))
    assert small.to_json()["conditions"]["threads"] == 1


def test_networks_take_turns_in_evaluation_mode_without_gradients() -> None:
    log = Log()
    measure_many([Products(1, log), Products(2, log)], X, Conditions(threads=2), repeats=50, warmup=3)
    assert {entry[1:4] for entry in log} == {(False, True, 2)}
    runs = [n for n, *_ in log[6:]]  # after the warm-up
    bursts = [runs[i : i + 6] for i in range(0, 120, 6)]  # one run to fill the caches, five that count
    assert len(runs) == 120
    assert all(len(set(burst)) == 1 for burst in bursts)
    turns = [(bursts[i][0], bursts[i + 1][0]) for i in range(0, 20, 2)]
    assert set(turns) == {(1, 2), (2, 1)}  # both in each turn, in either order


def test_two_measurements_meet_the_same_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(10_000))

    def slower_and_slower(run: Any, repeats: int, conditions: Conditions) -> float:
        return 1.0 + next(times) / 1000

    monkeypatch.setattr(measuring, "clock", slower_and_slower)
    first, second = measure_twice([Products(1), Products(1)], X, repeats=50)
    for one, other in zip(first, second, strict=True):
        assert one.repeats == other.repeats == 50
        assert one.quiet == pytest.approx(other.quiet, rel=0.02)  # by the end it is a fifth slower
    with pytest.raises(ConfigError, match="repeats must be at least 50"):
        measure_twice([Products(1)], X, repeats=10)


@pytest.mark.parametrize(
    ("busy_turns", "agree", "repeats"), [(20, 0.02, 100), (20, None, 50), (20, 0.5, 50), (1000, 0.02, 250)]
)
def test_measurements_that_disagree_go_on(
    monkeypatch: pytest.MonkeyPatch, busy_turns: int, agree: float | None, repeats: int
) -> None:
    turn, told = 0, list[tuple[int, int]]()

    def every_other_turn_is_slower(run: Any, times: int, conditions: Conditions) -> float:
        return 1.5 if turn % 2 and turn < busy_turns else 1.0

    def progress(done: int, turns: int) -> None:
        nonlocal turn
        turn += 1
        told.append((done, turns))

    monkeypatch.setattr(measuring, "clock", every_other_turn_is_slower)
    first, second = measure_twice([Products(1)], X, repeats=50, agree=agree, progress=progress)
    assert [one.repeats for one in (*first, *second)] == [repeats, repeats]
    assert told == [(done, 20) for done in range(1, 21)] * (repeats // 50)
    assert second[0].quiet == (1.0 if repeats == 100 else 1.5)


def test_what_disturbs_most_runs_leaves_the_undisturbed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(10_000))

    def mostly_disturbed(run: Any, repeats: int, conditions: Conditions) -> float:
        return 1.4 if next(times) % 10 else 1.0

    monkeypatch.setattr(measuring, "clock", mostly_disturbed)
    latency = measure(Products(1), X)
    assert (latency.quiet, latency.ms) == (1.0, 1.4)
    assert Latency.from_json(latency.to_json()) == latency


def test_the_caller_notices_nothing() -> None:
    network = Products(2).train()
    before = copy.deepcopy(network.state_dict())
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    measure(network, X, Conditions(threads=2, dtype="bfloat16"))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.is_inference_mode_enabled()


def test_the_batch_of_the_conditions_is_run() -> None:
    log = Log()
    measure(Products(1, log), X, Conditions(batch=5))
    assert {entry[4] for entry in log} == {5}
    grown = with_batch({"x": X, "scale": torch.ones(()), "flag": True, "table": torch.ones(7, 2)}, 3)
    assert isinstance(grown, dict)
    assert grown["x"].shape == (3, 64)
    assert torch.equal(grown["x"][2], X[0])
    assert grown["scale"].shape == ()
    assert grown["table"].shape == (7, 2)
    assert with_batch(X, 0) is X


def test_memory_format_and_dtype_reach_the_network() -> None:
    seen: list[tuple[bool, torch.dtype]] = []

    class Picture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            seen.append((x.is_contiguous(memory_format=torch.channels_last), x.dtype))
            assert self.conv.weight.is_contiguous(memory_format=torch.channels_last)
            out: Tensor = self.conv(x)
            return out

    measure(Picture(), torch.randn(1, 3, 8, 8), Conditions(channels_last=True, dtype="bfloat16"))
    assert set(seen) == {(True, torch.bfloat16)}


@pytest.mark.parametrize(
    ("taken_away", "waited", "threads", "ms"),
    [
        (0, 0, 1, 4.0),  # what is missing was never this machine's to give
        (1, 0, 1, 4.0),
        (1, 1, 1, 4.0),
        (0, 1, 1, 10.0),  # it waited for something of its own
        (1, 0, 2, 10.0),  # the other thread's time is not known
    ],
)
def test_a_thread_that_others_disturb_counts_its_own_time_only(
    taken_away: int, waited: int, threads: int, ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    walls, owns, counts = iter([0.0, 0.010]), iter([0.0, 0.004]), iter([(0, 0), (taken_away, waited)])
    with monkeypatch.context() as patch:
        patch.setattr(timing.time, "perf_counter", lambda: next(walls))
        patch.setattr(timing.time, "thread_time", lambda: next(owns))
        patch.setattr(timing, "_switches", lambda: next(counts))
        assert timing.clock(lambda: None, 1, Conditions(threads=threads)) == pytest.approx(ms)


@pytest.mark.parametrize(
    ("error", "told", "given"),
    [
        (ConfigError, "repeats must be at least 50, got 49", {"repeats": 49}),
        (ConfigError, "warmup must be at least 1, got 0", {"warmup": 0}),
        (RegistryError, "unknown latency backend 'onnxruntim'.*Did you mean 'onnxruntime'", {"backend": "onnxruntim"}),
        (ConfigError, "device 'cuda:99' is not there", {"device": "cuda:99"}),
    ],
)
def test_what_cannot_be_measured(error: type[Exception], told: str, given: dict[str, Any]) -> None:
    conditions = Conditions(**{name: given.pop(name) for name in list(given) if name in ("backend", "device")})
    with pytest.raises(error, match=told):
        measure(Products(1), X, conditions, **given)


def test_a_network_that_fails_is_one_clear_error() -> None:
    with pytest.raises(EvaluationError, match="does not run"):
        measure(Products(1), torch.randn(2, 63))


def test_random_weights_of_other_code_do_not_change() -> None:
    with seeded(0):
        expected = torch.randn(3)
    network = Products(1)
    with seeded(0):
        measure(network, X)
        assert torch.equal(torch.randn(3), expected)
