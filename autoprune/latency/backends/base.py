"""What every backend can do: make a network ready to run, and run one kernel alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

from torch import nn

from autoprune.cost.latency.device_profile import Conditions
from autoprune.cost.latency.kernels import DeviceKernel

Runner: TypeAlias = Callable[[], Any]
"""Runs once, without inputs; what it returns is of no interest."""


class Backend(ABC):
    """Runs networks.

    Attributes:
        packages: whose versions belong to a measurement.
        alignment: channel counts that are multiples of it may run other code than the others.
    """

    packages: ClassVar[tuple[str, ...]] = ("torch",)
    alignment: ClassVar[int] = 1

    @abstractmethod
    def ready(
        self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], conditions: Conditions
    ) -> Runner:
        """Return a function that runs the network once.

        Args:
            network: a copy of its own, in evaluation mode, on the device, of the dtype and memory format.
            args: positional inputs, likewise.
            kwargs: inputs by name, likewise.
            conditions: under which it is to run.

        Raises:
            ConfigError: the conditions are not for this backend, or a package is missing.
            EvaluationError: this network cannot be run so.
        """

    def idle(self, conditions: Conditions) -> Runner:
        """Return a function that takes as long as what every kernel that runs alone pays beside its own work."""
        return lambda: None

    @abstractmethod
    def kernel(self, kernel: DeviceKernel, shapes: Sequence[tuple[int, ...]], conditions: Conditions) -> Runner | None:
        """Return a function that runs one kernel on operands of these shapes; None where it cannot run alone."""
