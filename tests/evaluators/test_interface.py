"""What an evaluator may do beside returning a number: prepare, report, stop, hold others; all under the contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch

from autoprune.engines.base import WorkerSetup
from autoprune.engines.local import LocalEngine, evaluate
from autoprune.errors import AutopruneError, ConfigError, EvaluationError, RegistryError, RunError
from autoprune.evaluators import EVALUATORS
from autoprune.evaluators.artefact import FOLDER, LIST, files_of, prepared
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.making import check_evaluator, kind_of, make_evaluator, prepares_something
from autoprune.inherit.bn_recalibration import recalibrate_batch_norm
from autoprune.registry import Part
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score
from autoprune.testing.evaluators import EvaluatorContract, Make, tiny_bench
from autoprune.training.watch import Stopped, Watch


@final
class Plain(Evaluator):
    """Written for the first interface: a float, and nothing else overridden."""

    def __init__(self, factory: CandidateFactory) -> None:
        self._factory = factory

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        network = self._factory.candidate(widths)
        recalibrate_batch_norm(network, self._factory.task.calibration_inputs(4, seed=0), device=torch.device("cpu"))
        return self._factory.task.score(network)


@final
class Offset(Evaluator):
    """Adds a number that it prepares in two files; an attempt that was killed leaves the first one."""

    def __init__(self, factory: CandidateFactory, *, most: float = 1.0, die: bool = False) -> None:
        self._plain, self._most, self._die, self._offset = Plain(factory), most, die, np.nan

    def prepare(self, directory: Path, *, seed: int) -> None:
        for number in range(2):
            path = directory / "parts" / f"{number}.txt"
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                path.write_text(str(self._most * torch.rand(1, generator=torch.Generator().manual_seed(seed)).item()))
            if self._die:
                raise KeyboardInterrupt

    def load(self, directory: Path) -> None:
        self._offset = sum(float((directory / "parts" / f"{number}.txt").read_text()) for number in range(2))

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> Score:
        return Score(min(100.0, self._plain.evaluate(widths, seed=seed) + self._offset), 2.0, paired=True)


@final
class Steps(Evaluator):
    """Two scorings in turn, with a score on the way after the first one; it trains nothing."""

    kind = "training"

    def __init__(self, factory: CandidateFactory) -> None:
        self._plain = Plain(factory)

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        earlier = None if watch is None else watch.restore()
        scores: list[float] = [] if earlier is None else list(earlier["scores"])
        while len(scores) < 2:
            scores.append(self._plain.evaluate(widths, seed=seed))
            if watch is not None:
                watch.epoch(len(scores), 2, lambda: scores[-1], lambda: {"scores": list(scores)})
        return sum(scores) / 2


@final
class Chain(Evaluator):
    """The mean of others' scores, and of one more."""

    nests = ("steps", "last")

    def __init__(self, factory: CandidateFactory, *, steps: Sequence[Evaluator], last: Evaluator | None = None) -> None:
        self._steps = [*steps, last] if last is not None else list(steps)

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        return sum(float(step.evaluate(widths, seed=seed, full=full)) for step in self._steps) / len(self._steps)


OWN = {"plain": Plain, "offset": Offset, "steps": Steps, "chain": Chain}
SETTINGS: dict[str, Mapping[str, Any]] = {
    "chain": {"steps": ["plain", {"name": "offset", "settings": {"most": 3.0}}], "last": {"name": "offset"}}
}


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, own in OWN.items():
        monkeypatch.setitem(EVALUATORS._table, name, Part(f"{__name__}:{own.__name__}"))


class TestOwn(EvaluatorContract):
    @pytest.fixture(params=sorted(OWN))
    def make(self, request: pytest.FixtureRequest) -> Make:
        return lambda factory: make_evaluator(request.param, factory, SETTINGS.get(request.param, {}))


@pytest.fixture(scope="module")
def factory() -> CandidateFactory:
    return tiny_bench()


def test_a_preparation_that_was_killed_goes_on_from_what_it_left(factory: CandidateFactory, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepared(make_evaluator("offset", factory, {"die": True}), tmp_path, seed=1)
    first = tmp_path / FOLDER / "parts" / "0.txt"
    before = first.stat().st_mtime_ns
    assert not (tmp_path / LIST).exists()
    folder = prepared(make_evaluator("offset", factory, {}), tmp_path, seed=1)
    assert first.stat().st_mtime_ns == before
    assert (folder / "parts" / "1.txt").exists()


@pytest.mark.parametrize("damage", [lambda path: path.write_text("7"), lambda path: path.unlink()])
def test_what_was_prepared_and_is_damaged_is_prepared_again(
    factory: CandidateFactory, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    evaluator = make_evaluator("offset", factory, {})
    first = files_of(folder := prepared(evaluator, tmp_path, seed=1))
    damage(folder / "parts" / "1.txt")
    assert files_of(prepared(evaluator, tmp_path, seed=1)) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([FOLDER, LIST])


def test_what_was_prepared_and_is_damaged_is_refused_if_it_comes_out_otherwise(
    factory: CandidateFactory, tmp_path: Path
) -> None:
    evaluator = make_evaluator("offset", factory, {})
    folder = prepared(evaluator, tmp_path, seed=1)
    (folder / "parts" / "1.txt").write_text("7")
    with pytest.raises(RunError, match=r"1\.txt is not as .*again gave something else, .*; restore it, or start"):
        prepared(evaluator, tmp_path, seed=2)
    assert (folder / "parts" / "1.txt").read_text() == "7"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([FOLDER, LIST])


def test_the_nested_prepare_in_folders_of_their_own_and_all_load(factory: CandidateFactory, tmp_path: Path) -> None:
    chain, plain = (make_evaluator(name, factory, SETTINGS.get(name, {})) for name in ("chain", "plain"))
    folder = prepared(chain, tmp_path, seed=1)
    chain.load(folder)
    drawn = torch.rand(1, generator=torch.Generator().manual_seed(1)).item()
    score, own = (float(e.evaluate(factory.space.smallest, seed=0)) for e in (chain, plain))
    assert score == pytest.approx(own + (3.0 * 2 * drawn + 2 * drawn) / 3)


def test_workers_get_what_was_prepared(factory: CandidateFactory, tmp_path: Path) -> None:
    folder = prepared(make_evaluator("offset", factory, {}), tmp_path, seed=1)
    setup = WorkerSetup(factory, lambda f: make_evaluator("offset", f, {}), "short", 1, tmp_path, folder)
    engine = LocalEngine()
    engine.equip(setup)
    outcome = evaluate(setup.new_evaluator(), factory.space.full, seed=0)
    assert outcome.score is not None
    assert (outcome.standard_error, outcome.paired) == (2.0, True)


def test_what_was_prepared_travels_to_workers_elsewhere(factory: CandidateFactory, tmp_path: Path) -> None:
    packing = pytest.importorskip("autoprune.engines.ray.packing")
    folder = prepared(make_evaluator("offset", factory, {}), tmp_path, seed=1)
    setup = WorkerSetup(factory, Offset, "short", 1, tmp_path, folder)
    sent = packing.pack_setup(setup)
    expected = evaluate(setup.new_evaluator(), factory.space.smallest, seed=0).score
    assert packing.unpack_setup(sent, "cpu").artefact == folder, "no copy where the folder is there"
    folder.rename(tmp_path / "away")
    there = packing.unpack_setup(sent, "cpu")
    assert evaluate(there.new_evaluator(), factory.space.smallest, seed=0).score == expected


@final
class Checking(Evaluator):
    """Looks at its settings in a way of its own."""

    def __init__(self, factory: CandidateFactory, *, most: int = 1) -> None:
        pass

    @classmethod
    def check_settings(cls, settings: Mapping[str, Any]) -> None:
        if 3 // settings["most"] < 1:
            raise ConfigError("most is too much")

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        return 1.0


@final
class Unaware(Evaluator):
    """Has a method of that name, which means something else."""

    def __init__(self, factory: CandidateFactory) -> None:
        pass

    def check_settings(self, settings: Mapping[str, Any]) -> None:  # type: ignore[override]
        raise AssertionError("there is no instance yet")

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        return 1.0


@pytest.mark.parametrize(("most", "said"), [(4, "^most is too much$"), (0, "cannot check its settings: ZeroDivision")])
def test_settings_are_checked_before_anything_is_built(most: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EVALUATORS._table, "checking", Part(f"{__name__}:Checking"))
    monkeypatch.setitem(EVALUATORS._table, "unaware", Part(f"{__name__}:Unaware"))
    check_evaluator("checking", {"most": 3})
    with pytest.raises(ConfigError, match=said):
        check_evaluator("checking", {"most": most})
    check_evaluator("unaware", {})


def test_an_evaluator_is_what_those_inside_it_are() -> None:
    within = {"steps": ["plain", {"name": "chain", "settings": {"steps": ["scratch"]}}]}
    assert kind_of("chain", within) == "training"
    assert kind_of("chain", {"steps": ["plain"]}) == "short"
    assert make_evaluator("chain", tiny_bench(), within).kind == "training"
    assert not prepares_something("chain", within)
    assert prepares_something("chain", {"steps": [{"name": "chain", "settings": {"steps": [], "last": "offset"}}]})
    assert not prepares_something("inherited", {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": ["plain", "plian"]}, r"evaluator\.settings\.steps\[1\]: unknown evaluator 'plian'.*Did you mean"),
        ({"steps": [], "last": {"name": "plian"}}, r"evaluator\.settings\.last: unknown evaluator 'plian'"),
        (
            {"steps": [{"name": "chain", "settings": {"steps": [{"name": "scratch", "settings": {"epoch": 1}}]}}]},
            r"evaluator\.settings\.steps\[0\]\.settings\.steps\[0\]: evaluator 'scratch' has no setting 'epoch'",
        ),
        ({"steps": [{"name": "scratch", "setings": {}}]}, r"evaluator\.settings\.steps\[0\].*unknown key 'setings'"),
        ({"steps": [3]}, r"evaluator\.settings\.steps\[0\].*3"),
        ({"steps": [None]}, r"evaluator\.settings\.steps\[0\]"),
        ({}, r"evaluator 'chain' needs the setting 'steps'"),
    ],
)
def test_faults_inside_name_their_place(factory: CandidateFactory, settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, RegistryError), match=message) as caught:
        check_evaluator("chain", settings)
    with pytest.raises(AutopruneError) as again:
        make_evaluator("chain", factory, settings)
    assert str(again.value) == str(caught.value)


def test_a_value_out_of_range_inside_names_its_place(factory: CandidateFactory) -> None:
    settings = {"steps": [{"name": "scratch", "settings": {"epochs": 0}}]}
    with pytest.raises(ConfigError, match=r"evaluator\.settings\.steps\[0\]: evaluator 'scratch': epochs must be"):
        make_evaluator("chain", factory, settings)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"standard_error": -1.0}, "finite number of at least 0, or None, got -1.0"),
        ({"standard_error": float("nan")}, "got nan"),
        ({"standard_error": True}, "got True"),
        ({"paired": True}, "a paired score needs its standard error"),
        ({"examples": np.ones((2, 2))}, r"one finite number or truth value each, got float64 of shape \(2, 2\)"),
        ({"examples": np.array([1.0, np.nan])}, "one finite number or truth value each"),
        ({"examples": ["a"]}, "one finite number or truth value each"),
    ],
)
def test_noise_that_is_none_is_refused(about: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        Score(50.0, **about)


@final
class Meddling(Evaluator):
    """Changes the base network, and is stopped right after."""

    kind = "training"

    def __init__(self, factory: CandidateFactory) -> None:
        self._factory = factory

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        self._factory.model.get_parameter("head.bias").data.add_(1.0)
        raise Stopped


def test_a_stop_does_not_hide_that_the_base_network_was_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EVALUATORS._table, "meddling", Part(f"{__name__}:Meddling"))
    factory = tiny_bench()
    with pytest.raises(RunError, match=r"'meddling' changed the base network: parameter 'head\.bias'"):
        make_evaluator("meddling", factory, {}).evaluate(factory.space.full, seed=0)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("scratch", {"epochs": True}, "epochs must be at least 1, a whole number, got True"),
        ("scratch", {"distil": "no"}, "'scratch': distil must be true or false, without quotes, got 'no'"),
        ("scratch", {"keep_examples": "false"}, "keep_examples must be true or false"),
        ("racing", {"first": True}, "first must be at least 1, a whole number, got True"),
        ("inherited", {"calibration_batches": False}, "calibration_batches must be at least 0, a whole number"),
        ("inherited", {"paired": 1}, "paired must be true or false, without quotes, got 1"),
        ("inherited", {"keep_examples": None}, "keep_examples must be true or false"),
        ("supernet", {"keep_examples": "yes"}, "keep_examples must be true or false"),
        ("zero_cost", {"draws": True}, "draws must be at least 1"),
    ],
)
def test_true_is_no_number_and_a_text_no_truth(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_evaluator(name, tiny_bench(), settings)
