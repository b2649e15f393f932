"""Code of the user's that fails in a worker: told by its own words, and resuming ends as if it had not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import pytest
import torch
from fault_campaign.cases import results
from tiny import Convolutions, pictures
from torch import nn
from torch.utils.data import Dataset

import autoprune
from autoprune.errors import AutopruneError

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def instance() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def fail() -> Any:
    raise OSError("the disk\nis gone")


def leave() -> Any:
    raise SystemExit("bye")


FAULTS: Mapping[str, Callable[[], Any]] = {"fail": fail, "leave": leave, "nan": lambda: torch.nan}


@final
@dataclass(frozen=True)
class Cause:
    """A fault that all processes see: a file that says what happens, from how many calls on."""

    folder: Path

    def set(self, place: str, fault: str, after: int) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / place).write_text(f"{fault} {after}")

    def remove(self) -> None:
        for file in self.folder.iterdir():
            file.unlink()

    def meet(self, place: str) -> Any:
        file = self.folder / place
        if not file.exists():
            return None
        fault, after = file.read_text().split()
        with file.with_suffix(".calls").open("ab") as calls:
            calls.write(b".")
            called = calls.tell()
        return FAULTS[fault]() if called > int(after) else None


@final
class Examples(Dataset[Any]):
    def __init__(self, n: int, seed: int, place: str, cause: Cause) -> None:
        self.rows, self.place, self.cause = pictures(n, seed), place, cause

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        other = self.cause.meet(self.place)
        inputs, label = self.rows[index]
        return (inputs * other, label) if other is not None else (inputs, label)


def search(run_dir: Path, kind: str, cause: Cause, **changes: Any) -> autoprune.SearchResult:
    torch.manual_seed(0)
    given: dict[str, Any] = {"engine": {"name": "ray", "workers": 1}}
    verdict: dict[str, Any] = {"seeds": 1, "random_candidates": 1, "protocols": ["fine_tune"]}

    def score(network: nn.Module) -> Any:
        other = cause.meet("score")
        return other if other is not None else -float(sum(p.detach().abs().sum() for p in network.parameters()))

    def train(network: nn.Module, epochs: int, seed: int) -> None:
        cause.meet("train")
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(0.9)

    if kind == "functions":
        given |= {"score_func": score, "train_func": train, "verdict": verdict}
    else:
        parts = (Examples(48, 0, "rows", cause), Examples(32, 1, "scored", cause), Examples(32, 2, "test", cause))
        given |= {"data": parts, "training": {"epochs": 3, "batch_size": 16, "lr": 0.05}}
        given["verdict"] = verdict | {"fine_tune_epochs": 3}
    return autoprune.search(
        Convolutions(classes=4),
        torch.zeros(1, 1, 8, 8),
        constraints={"flops": "50%"},
        trials=4,
        controller="random",
        device="cpu",
        progress="silent",
        run_dir=run_dir,
        seed=1,
        trained=False,
        **(given | changes),
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Mapping[str, Any]]:
    """What a run of a kind ends with that nothing has disturbed, on the local engine."""
    found: dict[str, Mapping[str, Any]] = {}

    def known(kind: str) -> Mapping[str, Any]:
        if kind not in found:
            folder = tmp_path_factory.mktemp(kind)
            search(folder / "run", kind, Cause(folder / "cause"), engine="local")
            found[kind] = results(folder / "run")
        return found[kind]

    return known


LATE: dict[str, tuple[str, str, str, int, str]] = {
    "all candidates from one on": ("functions", "score", "fail", 4, r"OSError: the disk is gone \(HERE\)"),
    "no numbers from one on": ("functions", "score", "nan", 4, "it returned nan"),
    "a score that leaves": ("functions", "score", "leave", 4, r"SystemExit: bye \(HERE\)"),
    "the finals": ("functions", "train", "fail", 1, r"OSError: the disk is gone \(HERE\)"),
    "finals that leave": ("functions", "train", "leave", 1, r"SystemExit: bye \(HERE\)"),
    "a row in epoch three of the base network": ("data", "rows", "fail", 230, r"OSError: the disk is gone \(HERE\)"),
    "a row in epoch three of the finals": ("data", "rows", "fail", 560, r"OSError: the disk is gone \(HERE\)"),
    "NaN in a later batch of the finals": ("data", "rows", "nan", 560, "NaN or infinite"),
    "a row that is scored": ("data", "scored", "fail", 100, r"OSError: the disk is gone \(HERE\)"),
    "a test row": ("data", "test", "leave", 70, r"SystemExit: bye \(HERE\)"),
}


@pytest.mark.parametrize(
    "case", [case if case == "the finals" else pytest.param(case, marks=pytest.mark.slow) for case in LATE]
)
def test_what_fails_late_in_a_worker_is_told_and_resuming_ends_as_if_it_had_not(
    instance: None, case: str, undisturbed: Callable[[str], Mapping[str, Any]], tmp_path: Path
) -> None:
    kind, place, fault, after, message = LATE[case]
    run, cause = tmp_path / "run", Cause(tmp_path / "cause")
    cause.set(place, fault, after)
    with pytest.raises(AutopruneError, match=message.replace("HERE", re.escape(__file__) + r":\d+")):
        search(run, kind, cause)
    assert (run / "run.json").is_file()
    cause.remove()
    search(run, kind, cause, resume=True)
    found = results(run)
    assert [key for key, value in undisturbed(kind).items() if found.get(key) != value] == []
