"""What networks take that have lost single weights, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import autoprune

WEIGHTS, BIAS = 8 * 32, 8


def megabytes(width: int, **given: object) -> float:
    density = {key: value for key, value in given.items() if key != "dtype"}
    model = nn.Sequential(nn.Linear(32, 8))
    space = autoprune.trace(model, torch.randn(1, 32), options={"density": {"steps": 16, **density}})
    metrics = {"size_mb": {"dtype": given["dtype"]}} if "dtype" in given else None
    return float(space.cost((width,), metrics=metrics)["size_mb"])


@pytest.mark.parametrize(
    ("given", "width", "expected"),
    [
        ({}, 8, 4 * 128 + WEIGHTS / 8),  # half of the weights, one bit for each
        ({}, 1, 4 * 16 + WEIGHTS / 8),
        ({}, 16, 4 * WEIGHTS),  # all: no bits
        ({"steps": 64}, 63, 4 * WEIGHTS),  # the bits take more than the four weights that are gone
        ({"pattern": "1x4"}, 8, 4 * 128 + WEIGHTS / 4 / 8),  # a bit for each block
        ({"pattern": "2:4"}, 2, 4 * 128 + 128 * 2 / 8),  # two bits for each weight that stays
        ({"pattern": "2:4"}, 4, 4 * WEIGHTS),
        ({"pattern": "6:8"}, 6, 4 * 192 + WEIGHTS / 8),  # three bits for each were more than one for all
        ({"pattern": "N:8"}, 3, 4 * 96 + 96 * 3 / 8),
        ({"dtype": "float16"}, 8, 2 * 128 + WEIGHTS / 8),
    ],
)
def test_a_file_of_what_is_left_is_as_large(given: dict[str, object], width: int, expected: float) -> None:
    bias = 2 if "dtype" in given else 4
    assert megabytes(width, **given) == pytest.approx((expected + bias * BIAS) / 1e6, rel=1e-12)


def test_a_network_that_runs_holds_its_zeros() -> None:
    model = nn.Sequential(nn.Linear(32, 8))
    space = autoprune.trace(model, torch.randn(1, 32), options={"density": {}})
    assert space.cost((5,))["peak_memory_mb"] == space.cost(space.full)["peak_memory_mb"]
    assert space.cost((5,))["size_mb"] < space.cost(space.full)["size_mb"]
