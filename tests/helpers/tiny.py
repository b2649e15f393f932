"""Networks, tasks and jobs of a second or two, for tests of whole runs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import autoprune


class Perceptron(nn.Module):
    """4 -> 16 -> 12 -> 1, for regression; one of its layers is in eval mode for good."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 16), nn.Linear(16, 12), nn.Linear(12, 1)
        self.activation = activation()
        self.second.eval()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.second(self.activation(self.first(x))))
        out: Tensor = self.last(hidden)
        return out


class Convolutions(nn.Module):
    """Two convolutions with batch norm; 1 channel in, `classes` out."""

    def __init__(self, *, classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 8, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(12)
        self.head = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class Undecided(Convolutions):
    """Its graph holds both branches of a decision, so it has no flat form."""

    def forward(self, x: Tensor) -> Tensor:
        turned: Tensor = torch.cond(x.sum() > 0, torch.clone, torch.neg, (x,))
        return super().forward(turned)


class Named(Convolutions):
    """Returns its outputs by name."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"logits": super().forward(x)}


class Counting(Perceptron):
    """Counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


def broken(**_: object) -> Any:
    """Raises, as a factory or a data function may."""
    raise OSError("no disk")


X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = torch.sin(2 * X[:, :1]) * X[:, 1:2]


def perceptron(seed: int = 0, activation: type[nn.Module] = nn.ReLU) -> Perceptron:
    """A trained perceptron."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Perceptron(activation)
    flags = [module.training for module in model.modules()]
    fit(model, 2, seed)
    for module, flag in zip(model.modules(), flags, strict=True):
        module.training = flag
    return model


def fit(model: nn.Module, epochs: int, seed: int) -> None:
    """Train in place."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for chosen in torch.randperm(64, generator=order).split(16):
            optimizer.zero_grad()
            F.mse_loss(model(X[chosen]), Y[chosen]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def closeness(model: nn.Module) -> float:
    """Minus the squared error."""
    with torch.no_grad():
        return -float(F.mse_loss(model(X), Y))


def nan_score(model: nn.Module) -> float:
    """What a broken score function returns."""
    return float("nan")


def regression(
    run_dir: Path | None = None, model: nn.Module | None = None, call: Any = autoprune.search, **changes: Any
) -> Any:
    """A whole search in about a second."""
    given: dict[str, Any] = {
        "constraints": {"flops": "50%"},
        "score_func": closeness,
        "train_func": fit,
        "trials": 4,
        "controller": "random",
        "verdict": {"seeds": 2, "fine_tune_epochs": 1, "random_candidates": 2},
        "training": {"epochs": 2},
        "progress": "silent",
        "device": "cpu",
        "run_dir": run_dir,
    }
    return call(model or perceptron(), X[:1], **(given | changes))


def pictures(n: int, seed: int) -> TensorDataset:
    """Labelled images of 8 x 8 whose class is where they are bright."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (n,), generator=generator)
    images = torch.randn(n, 1, 8, 8, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 2
    return TensorDataset(images, labels)


JOB: dict[str, Any] = {
    "name": "tiny",
    "seed": 0,
    "device": "cpu",
    "threads": 1,
    "model": {"factory": "tiny:Convolutions"},
    "data": {"name": "digits"},
    "training": {"epochs": 1},
    "constraints": {"flops": "50%"},
    "search": {"trials": 3, "controller": {"name": "random"}, "rescore": 2},
    "verdict": {"seeds": 1, "fine_tune_epochs": 1, "random_candidates": 2},
}


def write_job(path: Path, changes: dict[str, Any] | None = None) -> Path:
    """Write a job file; the keys of `changes` are dotted paths into the job, None removes one."""
    job = copy.deepcopy(JOB)
    for key, value in (changes or {}).items():
        *folders, last = key.split(".")
        place = job
        for folder in folders:
            place = place.setdefault(folder, {})
        if value is None:
            del place[last]
        else:
            place[last] = value
    path.write_text(yaml.safe_dump(job))
    return path


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Equal to the last bit."""
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
