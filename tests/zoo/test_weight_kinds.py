"""Weights of another type are taken where they stay what they are, and refused where they would not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from autoprune.errors import ConfigError
from autoprune.zoo import load_weights


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        (
            "0.weight",
            torch.full((2, 3), 1 + 1j),
            r"1 that do not fit: 0\.weight of torch\.complex64 into",
        ),
        (
            "0.weight",
            torch.full((2, 3), 1e300, dtype=torch.float64),
            r"0\.weight of torch\.float64 into",
        ),
        ("1.num_batches_tracked", torch.tensor(1.5), r"num_batches_tracked of torch\.float32 into torch\.int64"),
        ("1.num_batches_tracked", torch.tensor(torch.nan), r"num_batches_tracked of torch\.float32 into torch\.int64"),
    ],
)
def test_numbers_that_would_become_others_are_refused(
    name: str, given: torch.Tensor, told: str, tmp_path: Path
) -> None:
    model = network()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    save_file({**before, name: given}, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=told):
        load_weights(model, tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_are_taken(dtype: torch.dtype, tmp_path: Path) -> None:
    given = {key: tensor.to(dtype) for key, tensor in network().state_dict().items()}  # counts, too
    save_file(given, tmp_path / "w.safetensors")
    model = network()
    load_weights(model, tmp_path / "w.safetensors")
    assert all(torch.equal(tensor.to(dtype), given[key]) for key, tensor in model.state_dict().items())
