"""Data of other tasks than classification are refused before anything is written, and told what to do with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Convolutions, pictures
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import autoprune
from autoprune.errors import AutopruneError

X = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
NUMBERS = torch.linspace(0, 3, 24)


class Examples(Dataset[Any]):
    def __init__(self, make: Any) -> None:
        self.make = make

    def __len__(self) -> int:
        return 24

    def __getitem__(self, i: int) -> Any:
        return self.make(X[i])


class Pixels(Convolutions):
    """A class for each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm1(self.conv1(x))
        return out


def own(model: nn.Module) -> float:
    with torch.no_grad():
        return -float((model(X)[:, 0] - NUMBERS).square().mean())


OTHERS: dict[str, tuple[Any, nn.Module, str]] = {
    "several labels": (
        TensorDataset(X, torch.arange(96).view(24, 4).remainder(3).clamp(max=1).float()),
        Convolutions(classes=4),
        "look like several labels at once",
    ),
    "one hot": (
        TensorDataset(X, torch.eye(4)[torch.arange(24) % 4]),
        Convolutions(classes=4),
        r"look like one-hot rows.*targets.argmax\(1\)",
    ),
    "numbers": (TensorDataset(X, NUMBERS), Convolutions(classes=1), "the model has 1 outputs"),
    "numbers, many outputs": (TensorDataset(X, NUMBERS), Convolutions(classes=4), "targets of type torch.float32"),
    "a column of numbers": (TensorDataset(X, NUMBERS[:, None]), Convolutions(classes=4), r"look like numbers \(regr"),
    "rows of numbers": (TensorDataset(X, torch.rand(24, 4)), Convolutions(classes=4), r"look like numbers \(regr"),
    "counts": (TensorDataset(X, torch.arange(24)), Convolutions(classes=1), "the model has 1 outputs"),
    "a mask": (TensorDataset(X, torch.zeros(24, 4, 4).long()), Pixels(), r"a tensor of shape \(8, 8, 4, 4\)"),
    "a mask, one output": (
        TensorDataset(X, torch.zeros(24, 8, 8).long()),
        Convolutions(classes=4),
        "look like a mask or a picture",
    ),
    "boxes": (Examples(lambda x: (x, {"boxes": x[0]})), Convolutions(), r"list of 2 \(\(1, 1, 8, 8\), dict\)"),
    "names": (Examples(lambda x: {"image": x, "label": 1}), Convolutions(), "dict with the keys image, label"),
    "weights": (Examples(lambda x: (x, 1, 0.5)), Convolutions(), "list of 3"),
    "two inputs": (Examples(lambda x: ((x, x), 1)), Convolutions(), r"list of 2 \(list, \(1,\)\)"),
    "texts": (Examples(lambda x: (x, "cat")), Convolutions(), "list of 2 .*(tuple|list)"),
    "nothing": (TensorDataset(X), Convolutions(), "list of 1"),
    "inputs alone": (Examples(lambda x: x), Convolutions(), r"inputs of shape \(1, 1, 8, 8\) without targets"),
}


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("form", [lambda data: data, lambda data: DataLoader(data, 8)])
def test_targets_of_another_kind_are_refused_with_the_way_out(case: str, form: Any, tmp_path: Path) -> None:
    data, model, message = OTHERS[case]
    message = message.replace(r"\(1, ", r"\(\d, ").replace(r"\(1,\)", r"\(\d,\)")
    with pytest.raises(AutopruneError, match=message) as raised:
        autoprune.search(
            model,
            X[:1],
            data=(form(data), form(data)),
            constraints={"flops": "50%"},
            device="cpu",
            run_dir=tmp_path / "run",
        )
    assert re.search("score_func.*train_func", str(raised.value))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (pictures(8, 0), r"got TensorDataset\. Keep a part .*random_split"),
        ({"train": pictures(8, 0), "val": pictures(8, 1)}, r"Say 'validation' for 'val'\."),
        ({"train": pictures(8, 0), "dev": pictures(8, 1)}, r"Say 'validation' for 'dev'\."),
        ({"training": pictures(8, 0), "validation": pictures(8, 1)}, r"Did you mean 'train'\?"),
        ((X.numpy(), X.numpy()), "make arrays a data set: .*TensorDataset"),
    ],
)
def test_what_is_no_pair_of_data_sets_says_how_to_make_one(given: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(AutopruneError, match=message):
        autoprune.search(
            Convolutions(classes=4),
            X[:1],
            data=given,
            constraints={"flops": "50%"},
            device="cpu",
            run_dir=tmp_path / "run",
        )
    assert not any(tmp_path.iterdir())


def test_the_way_out_is_one(tmp_path: Path) -> None:
    result = autoprune.search(
        Convolutions(classes=1),
        X[:1],
        score_func=own,
        data=DataLoader(TensorDataset(X, NUMBERS), 8),
        constraints={"flops": "50%"},
        trials=2,
        verdict={"seeds": 0},
        device="cpu",
        progress="silent",
        run_dir=tmp_path / "run",
    )
    assert result.record.base["validation"] > -100
