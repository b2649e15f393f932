"""Every measure keeps the contract, on networks and targets of the task that it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.data.batch import Batch, Ragged
from autoprune.measures import MEASURES
from autoprune.measures.base import Measure, make_measure
from autoprune.testing.measures import MeasureContract

_FEATURES, _EXAMPLES = 5, 40


class _Shaped(nn.Module):
    """(N, 5) -> (N, *shape)."""

    def __init__(self, seed: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layer = nn.Linear(_FEATURES, int(torch.tensor(shape).prod()))
        self.norm, self.shape = nn.BatchNorm1d(_FEATURES), shape

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(self.norm(x))
        return found.reshape(-1, *self.shape)


def _boxes(outputs: Tensor, images: Any) -> list[dict[str, Tensor]]:
    """One box of about 10 pixels for each image."""
    at = 2 * outputs[:, :2].tanh()
    boxes = torch.cat([at, at + 10 + outputs[:, 2:4].tanh()], dim=1)
    return [
        {"boxes": box[None], "scores": score.reshape(1), "labels": torch.tensor([1])}
        for box, score in zip(boxes, outputs[:, 4], strict=True)
    ]


def _targets(kind: str, made: torch.Generator) -> Any:
    if kind == "maps":
        masks = torch.randint(3, (_EXAMPLES, 4, 4), generator=made)
        return torch.where(torch.rand(masks.shape, generator=made) < 0.1, -100, masks)
    if kind == "labels":
        return torch.randint(2, (_EXAMPLES, 3), generator=made).float()
    if kind == "numbers":
        return torch.randn(_EXAMPLES, 3, generator=made)
    return Ragged({"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([1])} for _ in range(_EXAMPLES))


SHAPES: Mapping[str, tuple[int, ...]] = {"maps": (3, 4, 4), "labels": (3,), "numbers": (3,), "boxes": (5,)}
KINDS = {
    **dict.fromkeys(("mean_iou", "dice"), "maps"),
    **dict.fromkeys(("label_accuracy", "multilabel_f1", "multilabel_average_precision"), "labels"),
    **dict.fromkeys(("mean_squared_error", "mean_absolute_error", "r2"), "numbers"),
    "mean_average_precision": "boxes",
}
"""Measure -> what it is of, where that is not a classifier."""

KAPPA = {"metric": "classification.MulticlassCohenKappa", "arguments": {"num_classes": 3}}
QUICK: Mapping[str, Any] = {"top_k_accuracy": {"k": 2}, "torchmetrics": KAPPA}
SETTINGS = [(name, QUICK.get(name, {})) for name in MEASURES.names()]
SETTINGS += [("divergence", {"kind": kind}) for kind in ("kl", "relative_error")]
SETTINGS += [("multilabel_f1", {"average": "micro", "threshold": 0.3}), ("mean_iou", {"background": False})]
SETTINGS += [("mean_average_precision", {"overlap": 0.7})]


class TestEveryMeasure(MeasureContract):
    @pytest.fixture(params=SETTINGS, ids=str)
    def chosen(self, request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
        found: tuple[str, dict[str, Any]] = request.param
        return found

    @pytest.fixture
    def measure(self, chosen: tuple[str, dict[str, Any]]) -> Measure:
        made = make_measure({"name": chosen[0], "settings": chosen[1]})
        if KINDS.get(chosen[0]) == "boxes":
            made.decode = _boxes  # type: ignore[attr-defined]  # of this one
        return made

    @pytest.fixture
    def network(self, chosen: tuple[str, dict[str, Any]]) -> Callable[[int], nn.Module]:
        shape = SHAPES.get(KINDS.get(chosen[0], ""), (3,))
        return lambda seed: _Shaped(seed, shape)

    @pytest.fixture
    def model(self, network: Callable[[int], nn.Module]) -> nn.Module:
        return network(0)

    @pytest.fixture
    def base(self, network: Callable[[int], nn.Module]) -> nn.Module:
        return network(1)

    @pytest.fixture
    def examples(self, chosen: tuple[str, dict[str, Any]]) -> Batch:
        made = torch.Generator().manual_seed(0)
        inputs = torch.randn(_EXAMPLES, _FEATURES, generator=made)
        kind = KINDS.get(chosen[0])
        targets = _targets(kind, made) if kind else torch.randint(3, (_EXAMPLES,), generator=made)
        return Batch(inputs, targets)
