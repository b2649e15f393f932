"""The contract of every exporter, as a test class: subclass it and give it the exporter.

class TestMine(ExporterContract):
    @pytest.fixture
    def exporter(self) -> Exporter:
        return Mine()
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import AutopruneError, ExportError, RunError
from autoprune.export.base import Exporter, Source, Written
from autoprune.export.checking import TOLERANCE, difference
from autoprune.export.inputs import describe, drawn, tensors_of
from autoprune.export.writing import write_formats
from autoprune.randomness import seeded
from autoprune.space.cutting.slicing import random_ranking, slice_model
from autoprune.space.groups import with_all_blocks
from autoprune.space.origin import full_network, origin_of
from autoprune.space.serial import to_json
from autoprune.space.tracing.program import Example, call_arguments
from autoprune.space.verification.verify import verify
from autoprune.testing.generators import global_generators

Make: TypeAlias = Callable[[], tuple[nn.Module, Example]]


class Images(nn.Module):
    """Convolutions with norms and a sum of two branches; keeps its class when it is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.deep = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.head = nn.Linear(12, 5)
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 12), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = (x + self.deep(x)).mean((2, 3)) * self.get_buffer("scale")
        return self.head(nn.functional.dropout(x, 0.5, self.training))  # type: ignore[no-any-return]
