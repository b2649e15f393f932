"""The interface of inheritance, and lists of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor, nn

from autoprune.config.parts import ChosenPart, NamedPart
from autoprune.config.settings import bind
from autoprune.errors import ConfigError
from autoprune.inherit import INHERITANCE
from autoprune.space.cutting.cut import Cut


@final
class Statistics:
    """What methods may look at besides weights; each number of batches is gathered once, when it is asked for.

    Args:
        inputs: (number of batches) -> up to that many batches of calibration inputs; none where there are no data.
        device: where networks run.
    """

    def __init__(self, inputs: Callable[[int], Sequence[Tensor]], device: torch.device) -> None:
        self._inputs, self.device = inputs, device
        self._gathered: dict[int, Sequence[Tensor]] = {}

    def inputs(self, batches: int) -> Sequence[Tensor]:
        """Up to `batches` batches (N, *input_shape); the same ones each time."""
        if batches not in self._gathered:
            self._gathered[batches] = self._inputs(batches)
        return self._gathered[batches]


class Inheritance(ABC):
    """Changes the weights of a cut network so that it computes more of what the dense one does.

    A network cut at full width stays as it is, the dense one is only read, and the same inputs give the same result.
    """

    def prepare(self, statistics: Statistics) -> None:  # noqa: B027 - many need nothing
        """Ask for what `apply` will need, so that all of it is there before candidates are made and sent anywhere."""

    @abstractmethod
    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> None:
        """Change `cut.network` in place.

        Args:
            cut: the cut network, as the methods before this one left it.
            dense: the network it was cut from; only read.
            statistics: of the dense network, and calibration inputs.
        """


@final
class Chain:
    """Several methods, one after the other.

    Args:
        chosen: each a name, or {"name": …, "settings": {…}}.
        defaults: settings by the name of a method, for where the chosen one does not have them.

    Raises:
        RegistryError: no such method.
        ConfigError: a setting that it does not have, or of a wrong value.
    """

    def __init__(self, chosen: Sequence[ChosenPart], defaults: dict[str, dict[str, object]] | None = None) -> None:
        self._methods: list[Inheritance] = []
        for given in chosen:
            part = NamedPart.of(given, "inherit")
            made = bind(INHERITANCE, part.name, {**(defaults or {}).get(part.name, {}), **part.settings})()
            if not isinstance(made, Inheritance):
                raise ConfigError(f"inheritance {part.label!r} is a {type(made).__name__}: derive it from Inheritance")
            self._methods.append(made)

    def prepare(self, statistics: Statistics) -> None:
        """See `Inheritance.prepare`."""
        for method in self._methods:
            method.prepare(statistics)

    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> nn.Module:
        """Apply all methods in their order; returns the network of the cut."""
        for method in self._methods:
            method.apply(cut, dense, statistics)
        return cut.network
