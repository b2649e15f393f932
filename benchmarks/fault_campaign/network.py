"""What the campaign searches: a network so small that a whole run takes seconds, and its job."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

JOB: dict[str, Any] = {
    "name": "faults",
    "seed": 0,
    "device": "cpu",
    "threads": 1,
    "model": {"factory": "fault_campaign.network:Small"},
    "data": {"name": "digits"},
    "training": {"epochs": 2, "batch_size": 64, "lr": 0.2},
    "constraints": {"flops": "50%"},
    "search": {
        "trials": 6,
        "controller": "random",
        "evaluator": {"name": "inherited", "settings": {"calibration_batches": 2}},
        "rescore": 2,
    },
    "verdict": {"protocols": ["fine_tune"], "seeds": 1, "fine_tune_epochs": 1, "random_candidates": 2},
    "callbacks": [],
}


LONG: dict[str, Any] = {
    "search": JOB["search"] | {"trials": 120, "controller": "surrogate", "rescore": 1},
    "verdict": {"protocols": ["fine_tune"], "seeds": 0, "random_candidates": 1},
}
"""What differs in a search that is long enough for a snapshot of its controller."""


class Small(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, stride=2)
        self.last = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        x = torch.relu(self.norm(self.first(x)))
        found: Tensor = self.last(torch.relu(self.second(x)).mean((2, 3)))
        return found


def write_job(path: Path, **changes: Any) -> Path:
    """Write the job with other top-level keys."""
    path.write_text(yaml.safe_dump(copy.deepcopy(JOB) | changes))
    return path
