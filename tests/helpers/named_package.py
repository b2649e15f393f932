"""A package that a caller trusts, with what must not be run from it all the same."""

from __future__ import annotations

import functools
import os
import subprocess
from os import system
from pathlib import Path

from torch import nn

MARK = Path("was-run")

__all__ = ["MARK", "Eager", "Net", "half", "instance", "make", "os", "promised", "shell", "system", "wipe"]


class Net(nn.Linear):
    """A network."""

    def __init__(self, width: int = 4) -> None:
        super().__init__(width, width)

    @classmethod
    def large(cls) -> Net:
        return cls(8)


class Eager:
    """No network; does something when it is made."""

    def __init__(self) -> None:
        MARK.touch()


def make(width=4):  # type: ignore[no-untyped-def]  # as many write it
    return Net(width)


def promised(width: int = 4) -> nn.Module:
    return Net(width)


def wipe(path: str = "") -> None:
    MARK.touch()


half = functools.partial(make, 2)
shell = functools.partial(subprocess.run, ["touch", str(MARK)])
instance = Net()
