"""Work that only sleeps, for `scaling.py`: an actor that stands for many workers, and trainables of Ray Tune.

What runs in a worker of Ray Tune here imports neither torch nor autoprune, so that many processes fit on a machine.
Every nap leaves a line (begin and end, in seconds of the clock) in a folder.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune


def seconds_of(seconds: float, seed: int) -> float:
    """Naps differ by up to a quarter, so that workers do not move in step."""
    return seconds * (0.75 + 0.5 * random.Random(seed).random())


def score_of(widths: list[int], seed: int) -> float:
    """A score with diminishing returns and some noise."""
    return sum(width**0.5 for width in widths) + random.Random(seed).gauss(0, 0.3)


def note(folder: Path, begin: float) -> None:
    """Leave a line."""
    with (folder / f"naps-{os.getpid()}").open("a") as file:
        file.write(f"{begin} {time.time()}\n")


@ray.remote(num_cpus=0, max_concurrency=1000)
class Dormitory:
    """One process in which many workers of the actor lane sleep at the same time."""

    def __init__(self, folder: Path, seconds: float) -> None:
        from autoprune.trials.assignment import Outcome  # seconds of CPU, which must not be those of the first nap

        self._folder, self._seconds, self._outcome = folder, seconds, Outcome

    async def start(self, packed: object, device: str) -> None:
        """A worker is ready."""

    async def evaluate(self, widths: tuple[int, ...], seed: int, full: bool) -> object:
        """Sleep, then score."""
        begin = time.time()
        await asyncio.sleep(seconds_of(self._seconds, seed))
        note(self._folder, begin)
        return self._outcome(score_of(list(widths), seed), seconds=time.time() - begin)


class Nap(tune.Trainable):  # type: ignore[misc]
    """A resident process of Ray Tune: sleeps as long as the folder says now, and scores."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first piece; it lasts until all workers are there."""
        self._config, self._first = config, True

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next piece."""
        self._config = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Sleep and score, in one step."""
        folder, widths = Path(self._config["folder"]), [self._config[f"w{i}"] for i in range(self._config["groups"])]
        while self._first and not (folder / "all are here").exists():
            time.sleep(0.05)
        self._first = False
        begin, seed = time.time(), hash(tuple(widths))
        time.sleep(seconds_of(float((folder / "seconds").read_text()), seed))
        note(folder, begin)
        score = score_of(widths, seed)
        ending = SimpleNamespace(result=score, error=None, seconds=time.time() - begin, unsaved=0, pruned=False)
        return {"ending": ending, "score": score, "done": True}
