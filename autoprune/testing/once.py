"""Networks that many tests begin with: made once, as tracing and verifying one takes longer than most of its tests."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import nn

from autoprune.space.copying import copy_network

Parts = TypeVar("Parts", bound=tuple[Any, ...])


def made_once(build: Callable[..., Parts]) -> Callable[..., Parts]:
    """What a function returns, made at its first call with these arguments; networks in it are copies, each time new.

    The global generator of torch is seeded with 0 for the function, and afterwards as it was.

    Args:
        build: arguments that can be hashed -> a tuple; what is no network in it must not be changed by anybody.
    """

    @functools.cache
    def kept(*args: Any, **kwargs: Any) -> Parts:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build(*args, **kwargs)

    @functools.wraps(build)
    def made(*args: Any, **kwargs: Any) -> Parts:
        parts = kept(*args, **kwargs)
        return cast("Parts", tuple(copy_network(part) if isinstance(part, nn.Module) else part for part in parts))

    return made
