"""Losses of tasks other than classification: the contract, and the formulas."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from task_nets import OfLists, Reader, SingleShot, TinyUNet, WithAuxiliary, parts, seeded_network
from torch import Tensor, nn

from autoprune.config.training import Recipe
from autoprune.data.base import Split
from autoprune.data.batch import Batch, Ragged
from autoprune.data.collated import Collated, stacked
from autoprune.errors import ConfigError, EvaluationError
from autoprune.tasks.detection import collate_images
from autoprune.testing.objectives import ObjectiveContract
from autoprune.training.objectives.base import LossOfOutputs, Objective, make_objective
from autoprune.training.objectives.detection_loss import DetectionLoss, objects
from autoprune.training.objectives.logits import LogitLayout

MADE = torch.Generator().manual_seed(5)
LOGITS, LABELS = torch.randn(6, 4, generator=MADE), (torch.rand(6, 4, generator=MADE) < 0.5).float()
MAPS = torch.randn(3, 4, 5, 2, generator=MADE, dtype=torch.float64)
MASKS = torch.where(torch.rand(3, 5, 2, generator=MADE) < 0.3, -100, torch.randint(4, (3, 5, 2), generator=MADE))


class AlwaysLosing(OfLists):
    """Gives losses also where its batch norms are in evaluation mode, as laws about single batches need it."""

    def train(self, mode: bool = True) -> AlwaysLosing:
        super().train(mode)
        self.training = True
        return self


CASES: dict[str, tuple[str, Any, Any]] = {
    "binary_cross_entropy": ("multilabel", Reader, stacked),
    "pixel_cross_entropy": ("segmentation", TinyUNet, stacked),
    "pixel_cross_entropy with dice": ("segmentation", WithAuxiliary, stacked),
    "detection_loss": ("detection", SingleShot, collate_images),
    "detection_loss of lists": ("detection", AlwaysLosing, collate_images),
}


class TestEachTask(ObjectiveContract):
    @pytest.fixture(params=CASES)
    def case(self, request: pytest.FixtureRequest) -> str:
        found: str = request.param
        return found

    @pytest.fixture
    def new(self, case: str) -> Callable[[], Objective]:
        settings = {"dice": 0.5} if "dice" in case else {}
        return functools.partial(make_objective, Recipe(objective={"name": case.split()[0], "settings": settings}))

    @pytest.fixture
    def model(self, case: str) -> Callable[[int], nn.Module]:
        return lambda seed: seeded_network(CASES[case][1], seed)

    @pytest.fixture
    def split(self, case: str) -> Split:
        task, _, collate = CASES[case]
        sides = (16, 20) if "lists" in case else (16,)
        return Collated(parts(task, sides)["train"], "train", collate=collate, check=lambda batch, where: batch)

    @pytest.fixture
    def batch(self, split: Split) -> Batch:
        drawn: Batch = next(split.batches(6, seed=0))
        return drawn


def loss(name: str, outputs: Any, targets: Any, **settings: Any) -> float:
    objective = make_objective(Recipe(objective={"name": name, "settings": settings}))
    return float(LossOfOutputs(objective, name)(outputs, targets))


def test_binary_cross_entropy_is_that_of_the_formula() -> None:
    p, t = expit(LOGITS.double().numpy()), LABELS.double().numpy()
    by_hand = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    assert loss("binary_cross_entropy", LOGITS, LABELS) == pytest.approx(by_hand, rel=1e-5)
    soft = 0.8 * t + 0.1
    by_hand = -(soft * np.log(p) + (1 - soft) * np.log(1 - p)).mean()
    assert loss("binary_cross_entropy", LOGITS, LABELS, label_smoothing=0.2) == pytest.approx(by_hand, rel=1e-5)
    weights = np.array([1.0, 2.0, 0.0, 3.0])
    by_hand = -(weights * t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    found = loss("binary_cross_entropy", LOGITS, LABELS, positive_weights=[*weights])
    assert found == pytest.approx(by_hand, rel=1e-5)


def of_pixels(maps: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """(N,) the mean cross entropy of the pixels of each image that count."""
    found, logs = [], log_softmax(maps, axis=1)
    for image, mask in zip(logs, MASKS.numpy(), strict=True):
        at = np.argwhere(mask != -100)
        own = [-(1 if weights is None else weights[mask[i, j]]) * image[mask[i, j], i, j] for i, j in at]
        found.append(np.mean(own))
    return np.array(found)


def test_pixel_cross_entropy_is_that_of_the_formula() -> None:
    assert loss("pixel_cross_entropy", MAPS, MASKS) == pytest.approx(of_pixels(MAPS.numpy()).mean())
    weights = np.array([0.5, 2.0, 1.0, 0.0])
    expected = of_pixels(MAPS.numpy(), weights).mean()
    assert loss("pixel_cross_entropy", MAPS, MASKS, class_weights=[*weights]) == pytest.approx(expected)
    both = {"out": MAPS, "aux": -MAPS}
    expected = of_pixels(MAPS.numpy()).mean() + 0.4 * of_pixels(-MAPS.numpy()).mean()
    assert loss("pixel_cross_entropy", both, MASKS, auxiliary=0.4) == pytest.approx(expected)
    lost = torch.full_like(MASKS, -100)
    assert loss("pixel_cross_entropy", MAPS, lost) == 0.0


def test_the_soft_dice_is_that_of_the_formula() -> None:
    missing, shares = [], softmax(MAPS.numpy(), axis=1)
    for image, mask in zip(shares, MASKS.numpy(), strict=True):
        counts, own = mask != -100, []
        for label in np.unique(mask[counts]):
            there = mask == label
            own.append(2 * image[label][there].sum() / (image[label][counts].sum() + there.sum()))
        missing.append(1 - np.mean(own))
    expected = of_pixels(MAPS.numpy()).mean() + 0.7 * np.mean(missing)
    assert loss("pixel_cross_entropy", MAPS, MASKS, dice=0.7) == pytest.approx(expected)


def test_one_channel_is_the_logit_of_class_one() -> None:
    single, masks = MAPS[:, :1], MASKS.clamp(max=1)
    both = torch.cat([torch.zeros_like(single), single], dim=1)
    assert loss("pixel_cross_entropy", single, masks) == loss("pixel_cross_entropy", both, masks)
    p, counts = expit(single[:, 0].numpy()), masks.numpy() != -100
    each = -np.where(masks.numpy() == 1, np.log(p), np.log(1 - p)) * counts
    by_hand = (each.sum((1, 2)) / counts.sum((1, 2))).mean()
    assert loss("pixel_cross_entropy", single, masks) == pytest.approx(by_hand)


def test_maps_with_as_many_classes_as_pixels_are_read_as_maps() -> None:
    maps, masks = torch.randn(2, 5, 5, 5, generator=MADE), torch.randint(5, (2, 5, 5), generator=MADE)
    assert LogitLayout.of(maps, masks).axis == 1
    assert LogitLayout.of(maps, masks).loss(maps, masks, smoothing=0.0).item() == pytest.approx(
        loss("pixel_cross_entropy", maps, masks)
    )


def twice(outputs: Tensor, targets: Any) -> Tensor:
    return 2 * outputs.mean() + len(targets)


def counted(outputs: Tensor, targets: Any) -> Tensor:
    assert all(len(one["labels"]) == len(one["boxes"]) for one in targets)
    return outputs.mean() * 0 + torch.tensor([len(one["boxes"]) for one in targets]).float() @ torch.tensor([1.0, 10.0])


def test_crowds_are_no_objects_to_learn() -> None:
    """Rows with `iscrowd` of 1 are left out of the targets of the loss, whoever computes it."""
    network = seeded_network(SingleShot, 0).eval()
    (image, target), (other, second) = (parts("detection")["train"][i] for i in range(2))
    number = len(target["boxes"])
    crowd = torch.tensor([[0.0, 0.0, 15.0, 15.0]])
    marked = {
        "boxes": torch.cat([crowd, target["boxes"]]),
        "labels": torch.cat([target["labels"][:1], target["labels"]]),
        "iscrowd": torch.tensor([1] + [0] * number),
    }
    only = {"boxes": crowd, "labels": torch.ones(1).long(), "iscrowd": torch.ones(1).long()}
    without, with_crowd = (collate_images([(image, one), (other, second)]) for one in (target, marked))
    expected = DetectionLoss()(network, without)
    assert DetectionLoss()(network, with_crowd).item() == pytest.approx(expected.item())
    assert marked["iscrowd"].sum() == 1  # what the measure is given
    alone = collate_images([(image, marked), (other, only)])
    assert DetectionLoss(loss=counted)(network, alone).item() == number


def test_what_is_told_of_an_image_as_a_whole_stays_where_crowds_go() -> None:
    told = {"image_id": 7, "size": torch.tensor([30, 40]), "scale": torch.tensor(0.5)}
    rows = {"boxes": torch.arange(12.0).view(3, 4), "area": torch.arange(3.0), "iscrowd": torch.tensor([0, 1, 0])}
    found = objects({**rows, **told})
    assert found["boxes"].tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert (found["area"].tolist(), found["iscrowd"].tolist()) == ([0, 2], [0, 0])
    assert {name: found[name] for name in told} == told
    assert objects(rows["boxes"]) is rows["boxes"]


def test_the_loss_of_a_detector_is_a_function_or_its_own_method_or_what_it_returns_in_training() -> None:
    network, listed = seeded_network(SingleShot, 0).eval(), seeded_network(OfLists, 0).train()
    batch = collate_images([parts("detection")["train"][i] for i in range(3)])
    maps = network(batch.inputs)
    own = network.loss(maps, list(batch.targets))  # type: ignore[operator]
    assert DetectionLoss()(network, batch).item() == pytest.approx(sum(own.values()).item())
    for given in (twice, f"{__name__}:twice"):
        assert DetectionLoss(loss=given)(network, batch).item() == pytest.approx((2 * maps.mean() + 3).item())
    returned = listed(batch.inputs, list(batch.targets))
    assert DetectionLoss()(listed, batch).item() == pytest.approx(sum(returned.values()).item(), rel=1e-5)
    graph = nn.Sequential(network.features, network.head)  # type: ignore[arg-type]  # modules
    stands_in = DetectionLoss()
    stands_in.stand_in = network
    assert stands_in(graph, batch).item() == pytest.approx(sum(own.values()).item())


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: loss("binary_cross_entropy", LOGITS, LABELS[:, :2]), EvaluationError, "targets of one shape"),
        (lambda: loss("binary_cross_entropy", LOGITS, LABELS, positive_weights=[1]), EvaluationError, "1 positive_w"),
        (lambda: loss("binary_cross_entropy", LOGITS, LABELS, positive_weights=[-1]), ConfigError, "at least 0"),
        (lambda: loss("pixel_cross_entropy", MAPS[:, :3], MASKS), EvaluationError, "class number 3 for a network"),
        (lambda: loss("pixel_cross_entropy", MAPS, MASKS.float()), EvaluationError, "class numbers"),
        (lambda: loss("pixel_cross_entropy", {"a": MAPS}, MASKS), EvaluationError, "no logits are known"),
        (lambda: loss("pixel_cross_entropy", MAPS, MASKS, dice=-1), ConfigError, "dice must be finite and at least 0"),
        (lambda: loss("pixel_cross_entropy", MAPS, MASKS, class_weights=[1]), EvaluationError, "1 class_weights for 4"),
        (lambda: DetectionLoss(loss=f"{__name__}:MAPS"), ConfigError, "must be a function or module:function"),
        (
            lambda: DetectionLoss(loss=lambda outputs, targets: None)(nn.Identity(), Batch(LOGITS, Ragged([{}] * 6))),
            EvaluationError,
            "gives NoneType for its loss",
        ),
    ],
)
def test_what_does_not_fit_is_one_clear_error(call: Callable[[], object], kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
