"""Evaluators without networks: what they do depends on the widths, and every call leaves a line on disk."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch

from autoprune.engines.base import WorkerSetup
from autoprune.evaluators.base import Evaluator, Kind
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.space.groups import Widths

Behaviour = Callable[[Widths, int, Path], float]
"""(widths, how often they were evaluated before, a folder) -> score."""


class Acting(Evaluator):
    """Writes down each evaluation, then behaves as it is told."""

    def __init__(self, factory: object, *, folder: Path, behaviour: Behaviour) -> None:
        self._folder, self._behaviour = folder, behaviour

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: object = None) -> float:
        name = "-".join(map(str, widths)) + ("-full" if full else "")
        before = calls(self._folder).count(name)
        with (self._folder / "calls.txt").open("a") as file:
            file.write(f"{name} {os.getpid()}\n")
        return self._behaviour(widths, before, self._folder)


class Following(Evaluator):
    """A score that depends on the two best candidates when this one was proposed."""

    follows = 2

    def __init__(self, factory: object) -> None:
        pass

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, incumbents: tuple[Widths, ...] = ()) -> float:
        return sum(width**0.5 for width in widths) + sum(map(sum, incumbents)) % 7 / 10


def calls(folder: Path) -> list[str]:
    """What was evaluated, in the order in which it began."""
    file = folder / "calls.txt"
    return [line.split()[0] for line in file.read_text().splitlines()] if file.is_file() else []


def setup(folder: Path, behaviour: Behaviour, *, kind: Kind = "short") -> WorkerSetup:
    """A setup of such an evaluator; its factory has a task without data and nothing else."""
    factory = SimpleNamespace(task=SimpleNamespace(device=torch.device("cpu")))
    evaluator = functools.partial(Acting, folder=folder, behaviour=behaviour)
    return WorkerSetup(cast("CandidateFactory", factory), cast("Any", evaluator), kind, 1, folder)


def plain(widths: Widths, before: int, folder: Path) -> float:
    """A score, at once."""
    return sum(width**0.5 for width in widths)


def slow(widths: Widths, before: int, folder: Path) -> float:
    """A score, after a fifth of a second."""
    time.sleep(0.2)
    return plain(widths, before, folder)


def dies_once(widths: Widths, before: int, folder: Path) -> float:
    """Every third candidate kills its worker, the first time it is evaluated."""
    if sum(widths) % 3 == 0 and not before:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(widths, before, folder)


def dies_always(widths: Widths, before: int, folder: Path) -> float:
    """Every third candidate kills its worker."""
    return dies_once(widths, 0, folder)


def hangs(widths: Widths, before: int, folder: Path) -> float:
    """One candidate never ends."""
    if sum(widths) == 49:
        time.sleep(1e6)
    return plain(widths, before, folder)


def misbehaves(widths: Widths, before: int, folder: Path) -> float:
    """What a candidate does wrong, if anything, depends on the sum of its widths."""
    kept = []
    match sum(widths):
        case 46:
            while True:
                kept.append(bytearray(os.urandom(1) * 100_000_000))
                time.sleep(0.01)
        case 47:
            raise ArithmeticError("no score")
        case 58:
            return float("nan")
    return plain(widths, before, folder)


def refuses_to_be_built(factory: object) -> Evaluator:
    """An evaluator factory that fails."""
    raise OSError("no such calibration file")
