"""What every exporter is given, and what it does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, final

from torch import Tensor, nn

from autoprune.space.copying import copy_network

Description: TypeAlias = Mapping[str, Any]
"""What a network is called with, as plain JSON (`export.inputs`)."""


@final
@dataclass(frozen=True, eq=False)
class ExportSource:
    """A searched network and what is known of it. Exporters only read.

    Attributes:
        architecture: widths by group, costs, how the full model is built; what `architecture.yaml` holds.
        space: which index of which tensor belongs to which group, and the ranking; what `space.json` holds.
        weights: the state dict.
        build: returns the network with these weights; raises where the full model is needed and nobody has it.
        describe: returns what the network is called with; raises where nobody knows.
    """

    architecture: Mapping[str, Any]
    space: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    build: Callable[[], nn.Module]
    describe: Callable[[], Description]

    @cached_property
    def network(self) -> nn.Module:
        """The network, in evaluation mode, on the CPU; built when it is first asked for."""
        return copy_network(self.build()).cpu().eval()

    @cached_property
    def inputs(self) -> Description:
        """What the network is called with; `export.inputs.drawn` makes inputs of it."""
        return self.describe()


@final
@dataclass(frozen=True, slots=True)
class WrittenFiles:
    """What an exporter has written.

    Attributes:
        files: below the folder that it was given.
        any_batch: what is written takes batches of any size; False: only that of the example.
        usage: code that makes it ready to be called, in the folder of the export.
    """

    files: tuple[Path, ...]
    any_batch: bool = True
    usage: str = ""


class Exporter(ABC):
    """One format. Its settings are keyword arguments of `__init__`."""

    @abstractmethod
    def write(self, source: ExportSource, folder: Path) -> WrittenFiles:
        """Write the network into a folder that is there and empty.

        Raises:
            ExportError: the network cannot be written in this format, or a package for it is missing.
        """

    def read(self, folder: Path) -> Callable[..., Any] | None:
        """What was written, ready to be called as the network is; None where it cannot run here.

        Where it runs, its outputs are compared with the network's before anything appears at its place. They may be in
        a flat list.
        """
        return None
