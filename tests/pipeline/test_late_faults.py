"""Code of the user's that fails in the middle of a run: told by its own words, and resuming ends as if it had not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, final

import pytest
import torch
from fault_campaign.cases import results
from tiny import Convolutions, pictures
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import autoprune
from autoprune.errors import AutopruneError

FAULTS: dict[str, Callable[[], Any]] = {}
"""Place -> what it does instead of its work; empty where all is well."""

CALLS: dict[str, int] = {}


def at(place: str, *, after: int) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """From a call on, `place` does something else."""

    def broken(fault: Callable[[], Any]) -> Callable[[], Any]:
        def maybe() -> Any:
            return fault() if CALLS[place] > after else None

        FAULTS[place] = maybe
        return maybe

    return broken


def call(place: str) -> Any:
    CALLS[place] = CALLS.get(place, 0) + 1
    return FAULTS.get(place, lambda: None)()


@pytest.fixture(autouse=True)
def _no_fault() -> Iterator[None]:
    FAULTS.clear()
    CALLS.clear()
    yield
    FAULTS.clear()


@final
class Examples(Dataset[Any]):
    def __init__(self, n: int, seed: int, place: str) -> None:
        self.rows, self.place = pictures(n, seed), place

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        other = call(self.place)
        inputs, label = self.rows[index]
        return (inputs * other, label) if other is not None else (inputs, label)


class Failing(Convolutions):
    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            call("forward")
        return super().forward(x)


class Failed(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        call("optimizer")
        return super().step(closure)


def collated(batch: list[Any]) -> Any:
    call("collate")
    return torch.utils.data.default_collate(batch)


def score(network: nn.Module) -> Any:
    other = call("score")
    return other if other is not None else -float(sum(p.detach().abs().sum() for p in network.parameters()))


def train(network: nn.Module, epochs: int, seed: int) -> None:
    call("train")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.9)


def search(run_dir: Path, kind: str, **changes: Any) -> autoprune.SearchResult:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "constraints": {"flops": "50%"},
        "trials": 4,
        "controller": "random",
        "device": "cpu",
        "progress": "silent",
        "run_dir": run_dir,
        "seed": 1,
    }
    if kind == "functions":
        verdict = {"seeds": 1, "random_candidates": 1, "protocols": ["fine_tune"]}
        given |= {"score_func": score, "train_func": train, "verdict": verdict}
    else:
        loader = DataLoader(Examples(32, 2, "test"), 16, collate_fn=collated)
        given["data"] = (Examples(48, 0, "train"), Examples(32, 1, "validation"), loader)
        given["training"] = {"epochs": 3, "batch_size": 16, "lr": 0.05, "optimizer": Failed.__module__ + ":Failed"}
        given["verdict"] = {"seeds": 1, "random_candidates": 1, "protocols": ["fine_tune"], "fine_tune_epochs": 1}
    return autoprune.search(Failing(classes=4), torch.zeros(1, 1, 8, 8), **(given | changes), trained=False)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, Any]]:
    FAULTS.clear()
    found = {}
    for kind in ("functions", "data"):
        folder = tmp_path_factory.mktemp(kind) / "run"
        search(folder, kind)
        found[kind] = results(folder)
    return found


def own(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


LATE: dict[str, tuple[str, str, int, Callable[[], Any], str]] = {
    "a row in epoch three": ("data", "train", 230, own(OSError("the disk is gone")), r"OSError: .* gone \(HERE\)"),
    "an epoch cut short": ("data", "train", 230, own(StopIteration()), r"StopIteration.* \(HERE\)"),
    "a row that leaves": ("data", "train", 230, own(SystemExit(3)), r"SystemExit: 3 \(HERE\)"),
    "NaN in a later batch": ("data", "train", 230, lambda: torch.nan, "NaN or infinite"),
    "a test row": ("data", "test", 70, own(KeyError("img_7")), r"KeyError: 'img_7' \(HERE\)"),
    "a step of the finals": ("data", "optimizer", 11, own(ArithmeticError("none")), r"ArithmeticError: none \(HERE\)"),
    "all candidates from one on": ("functions", "score", 4, own(RuntimeError("it broke")), r"it broke \(HERE\)"),
    "no numbers from one on": ("functions", "score", 4, lambda: torch.nan, "it returned nan"),
    "a score that leaves": ("functions", "score", 4, own(SystemExit("bye")), r"SystemExit: bye \(HERE\)"),
    "the finals": ("functions", "train", 1, own(RuntimeError("the oven is cold")), r"the oven is cold \(HERE\)"),
}


@pytest.mark.parametrize("case", LATE)
def test_what_fails_late_is_told_and_resuming_ends_as_if_it_had_not(
    case: str, undisturbed: Mapping[str, Mapping[str, Any]], tmp_path: Path
) -> None:
    kind, place, after, fault, message = LATE[case]
    run = tmp_path / "run"
    at(place, after=after)(fault)
    with pytest.raises(AutopruneError, match=message.replace("HERE", re.escape(__file__) + r":\d+")):
        search(run, kind)
    assert (run / "run.json").is_file()
    FAULTS.clear()
    search(run, kind, resume=True)
    found = results(run)
    assert [key for key, value in undisturbed[kind].items() if found.get(key) != value] == []


@pytest.mark.parametrize("error", [OSError("no disk"), SystemExit(1), StopIteration("none")])
@pytest.mark.parametrize(("kind", "place"), [("data", "train"), ("data", "test"), ("functions", "score")])
def test_what_fails_at_once_is_told_before_anything_is_written(
    kind: str, place: str, error: BaseException, tmp_path: Path
) -> None:
    at(place, after=0)(own(error))
    with pytest.raises(AutopruneError, match=rf"{type(error).__name__}.*{re.escape(__file__)}:\d+"):
        search(tmp_path / "run", kind)
    assert not any(tmp_path.iterdir())
