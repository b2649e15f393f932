"""Mixup and CutMix: losses by hand, any objective, one pass of each network, clear errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.config.training import Recipe
from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError
from autoprune.testing.evaluators import InterruptingWatch, TinyNet, tiny_splits
from autoprune.testing.objectives import same_weights
from autoprune.training.loop import train
from autoprune.training.mixing import Mixing
from autoprune.training.objectives.base import make_objective
from autoprune.training.watch import Stopped

CPU = torch.device("cpu")
IMAGES = torch.arange(4 * 3 * 8 * 8, dtype=torch.float32).reshape(4, 3, 8, 8) / 768
LABELS = torch.tensor([0, 1, 2, 1])


class Seen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.calls = nn.Linear(192, 3), 0
        self.last: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls, self.last = self.calls + 1, x.detach().clone()
        logits: Tensor = self.head(x.flatten(1))
        return logits


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_the_loss_is_that_of_soft_targets_in_proportion_to_what_is_seen(kind: str, seed: int) -> None:
    model = Seen()
    torch.manual_seed(seed)
    loss = Mixing(**{"mixup": 0.0, "cutmix": 0.0, kind: 1.0}).loss(
        make_objective(Recipe()), model, Batch(IMAGES, LABELS)
    )
    before, seen = IMAGES.roll(1, 0), model.last
    if kind == "mixup":
        share = ((seen - before) / (IMAGES - before)).mean()
        torch.testing.assert_close(seen, share * IMAGES + (1 - share) * before)
    else:
        own = seen == IMAGES
        assert torch.equal(torch.where(own, IMAGES, before), seen)
        share = own.float().mean()
    soft = share * F.one_hot(LABELS, 3) + (1 - share) * F.one_hot(LABELS.roll(1, 0), 3)
    torch.testing.assert_close(loss, F.cross_entropy(model(seen), soft))
    assert 0 <= share <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"mixup": 0.2, "cutmix": 1.0},
        {
            "mixup": 0.4,
            "objective": {"name": "combined", "settings": {"parts": ["distillation", "feature_distillation"]}},
        },
    ],
)
def test_a_mixed_training_learns_and_resumes_to_the_same_weights(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    teacher, recipe = TinyNet(), Recipe(epochs=3, lr=0.05, batch_size=32, **options)

    def trained(watch: InterruptingWatch | None = None) -> nn.Module:
        torch.manual_seed(1)
        network = TinyNet()
        train(network, tiny_splits().train, recipe, seed=2, device=CPU, teacher=teacher, watch=watch)
        return network

    whole, watch = trained(), InterruptingWatch()
    with pytest.raises(Stopped):
        trained(watch)
    assert same_weights(trained(watch), whole)


def test_each_network_runs_once_for_a_mixed_batch() -> None:
    model, teacher = Seen(), Seen().eval()
    made = make_objective(Recipe(objective="distillation"))
    made.teacher = teacher
    Mixing(1.0, 0.0).loss(made, model, Batch(IMAGES, LABELS))
    assert model.calls == teacher.calls == 1
    assert made.teacher is teacher


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (Batch((IMAGES, IMAGES), LABELS), "mix one tensor of inputs with one of targets.*tuple and Tensor; leave"),
        (Batch(IMAGES), "Tensor and NoneType; leave them out"),
        (Batch(IMAGES[:, 0, 0], LABELS), r"cutmix mixes images \(N, C, H, W\), and inputs are torch.float32 \(4, 8\)"),
    ],
)
def test_what_cannot_be_mixed_is_one_clear_error(batch: Batch, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        Mixing(0.0, 1.0).loss(make_objective(Recipe()), Seen(), batch)
