"""How `benchmarks/criteria.py` measures criteria: on which images, and what becomes of one that fails."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reconstruction.bases import Trained
from reconstruction.rankings import ORACLE, REPEAT, SCORES, Rankings, Row
from torch import Tensor, nn


def made() -> Trained:
    """A network without norms whose score is the sum of its outputs for ones."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3)).eval()
    batches: list[tuple[Tensor, Tensor | None]] = [
        (torch.randn(16, 1, 6, 6), torch.randint(0, 3, (16,))) for _ in range(4)
    ]
    return Trained("tiny", model, batches[0][0][:1], batches, summed, "points")


def summed(model: nn.Module) -> float:
    with torch.no_grad():
        return float(model(torch.ones(1, 1, 6, 6)).sum())


@pytest.fixture
def trained() -> Trained:
    return made()


def changes(trained: Trained, images: slice) -> list[float]:
    """|change of the mean loss| where a channel is masked by hand."""
    conv, _, _, linear = trained.model
    inputs = torch.cat([x for x, _ in trained.batches[images]])
    labels = torch.cat([y for _, y in trained.batches[images] if y is not None])
    hidden = conv(inputs).relu()
    losses = []
    for channel in (None, *range(8)):
        open_ = torch.ones(8)
        if channel is not None:
            open_[channel] = 0
        with torch.no_grad():
            losses.append(float(F.cross_entropy(linear((hidden * open_[:, None, None]).flatten(1)), labels)))
    return [abs(loss - losses[0]) for loss in losses[1:]]


def test_the_oracle_sees_the_images_of_the_criteria_and_then_others(trained: Trained) -> None:
    rankings = Rankings(trained, 50)
    for criterion, images in ((ORACLE, slice(0, 2)), (REPEAT, slice(2, 4))):
        (scores,) = rankings.scored(Row("tiny", criterion, 0, SCORES)).scores
        assert scores == pytest.approx(changes(trained, images), abs=1e-5)


def test_the_network_is_cut_by_the_scores_that_were_kept(trained: Trained) -> None:
    conv, _, _, linear = trained.model
    best = [6, 1, 3, 4]
    given = Row("tiny", "l1", 0, SCORES, scores=[[float(channel in best) for channel in range(8)]])
    row = Rankings(trained, 50).cut(Row("tiny", "l1", 0, "recalibrated", 50), given)
    assert row.flops == pytest.approx(50)
    hidden = conv(torch.ones(1, 1, 6, 6)).relu()
    only = torch.from_numpy(np.isin(range(8), best)).float()
    masked = linear((hidden * only[:, None, None]).flatten(1)).sum()
    assert row.value == pytest.approx(masked.item(), abs=1e-5)
    assert row.base == pytest.approx(summed(trained.model))


def test_a_criterion_that_fails_is_a_row_that_says_why(trained: Trained) -> None:
    blank: list[tuple[Tensor, Tensor | None]] = [(x * torch.nan, y) for x, y in trained.batches]
    rankings = Rankings(Trained("tiny", trained.model, trained.example, blank, summed, "points"), 50)
    failed = rankings.scored(Row("tiny", "taylor_weight", 0, SCORES))
    assert "not finite" in failed.failed
    assert rankings.cut(Row("tiny", "taylor_weight", 0, "recalibrated"), failed).failed == failed.failed
