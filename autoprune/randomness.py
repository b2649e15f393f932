"""The global generators (Python, numpy, torch on CPU and CUDA) as something to borrow and give back."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch

T = TypeVar("T")


@contextmanager
def seeded(seed: int, *generators: torch.Generator) -> Iterator[None]:
    """Inside, the global generators and `generators` start from `seed`; outside they are as they were."""
    restore = _snapshot(generators)
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        for generator in _torch_generators(generators):
            generator.manual_seed(seed)
        yield
    finally:
        restore()


@contextmanager
def untouched() -> Iterator[None]:
    """Whatever is drawn inside, the global generators are afterwards as they were."""
    restore = _snapshot(())
    try:
        yield
    finally:
        restore()


def python_draws() -> Callable[[], bool]:
    """Return a function that says whether Python's or numpy's generator has been used since now."""

    def states() -> tuple[object, ...]:
        legacy = np.random.get_state(legacy=False)["state"]
        return random.getstate(), legacy["pos"], legacy["key"].tobytes()

    before = states()
    return lambda: states() != before


def draws() -> Callable[[], bool]:
    """Return a function that says whether any global generator has been used since now."""
    in_python, before = python_draws(), [(generator, generator.get_state()) for generator in _torch_generators(())]
    return lambda: in_python() or any(not torch.equal(state, generator.get_state()) for generator, state in before)


def isolated(items: Iterable[T], *generators: torch.Generator, seed: int) -> Iterator[T]:
    """Iterate `items` so that what it draws comes from `seed` and the loop around it notices nothing.

    A `with seeded(...)` around a `yield` would leak into the consumer; here each step borrows and gives back.
    """
    with seeded(seed, *generators):
        iterator = iter(items)
        resume = _snapshot(generators)
    while True:
        restore = _snapshot(generators)
        try:
            resume()
            item = next(iterator)
            resume = _snapshot(generators)
        except StopIteration as end:
            if _of_an_example(end):
                told = f"{repr(end).removesuffix('()')}, which would have ended the epoch here"
                raise RuntimeError(str(end) if _CARRIED in str(end) else told).with_traceback(
                    end.__traceback__
                ) from end
            return
        finally:
            restore()
        yield item


_CARRIED = "Traceback"  # in the text of an error that a worker of a loader raised


def _of_an_example(end: StopIteration) -> bool:
    """Whether not the loader has ended, but the data set raised it for one of its examples."""
    names = {frame.f_code.co_qualname for frame, _ in traceback.walk_tb(end.__traceback__)}
    return not names.isdisjoint(("_MapDatasetFetcher.fetch", "ExceptionWrapper.reraise"))


def _snapshot(generators: Iterable[torch.Generator]) -> Callable[[], None]:
    """Return a function that puts every generator back to its state of now."""
    python, legacy = random.getstate(), np.random.get_state()
    states = [(generator, generator.get_state()) for generator in _torch_generators(generators)]

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(legacy)
        for generator, state in states:
            generator.set_state(state)

    return restore


def _torch_generators(own: Iterable[torch.Generator]) -> list[torch.Generator]:
    # an untouched CUDA stays untouched: initialising it would forbid the process to fork
    cuda = torch.cuda.default_generators if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    return [torch.default_generator, *cuda, *own]
