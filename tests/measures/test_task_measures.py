"""The numbers of measures of each task are those of torchmetrics, scikit-learn, or a hand calculation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics.functional as tm
import torchmetrics.functional.classification as of_classes
from sklearn import metrics as sk
from torch import Tensor

from autoprune.data.batch import Batch, Ragged
from autoprune.errors import ConfigError, EvaluationError
from autoprune.measures.base import make_measure, with_jackknife
from autoprune.measures.divergence import of_numbers
from autoprune.tasks.scoring import score_of

MADE = torch.Generator().manual_seed(7)
LOGITS = 2 * torch.randn(90, 5, generator=MADE)
CLASSES = torch.multinomial(torch.tensor([0.6, 0.2, 0.1, 0.1, 0.0]), 90, replacement=True, generator=MADE)
LABELS = (torch.rand(90, 5, generator=MADE) < torch.tensor([0.5, 0.2, 0.8, 0.1, 0.4])).float()
NUMBERS = LOGITS + torch.randn(90, 5, generator=MADE)
MAPS = torch.randn(12, 4, 6, 5, generator=MADE)
MASKS = torch.where(torch.rand(12, 6, 5, generator=MADE) < 0.2, -100, torch.randint(3, (12, 6, 5), generator=MADE))


def value(name: str, outputs: Any, targets: Any, **settings: Any) -> tuple[float, float | None]:
    """A score in the measure's own sign, read in two batches, and its standard error."""
    n, parts = len(targets), []
    for part in (slice(0, n // 3), slice(n // 3, n)):
        kept = outputs[part] if isinstance(outputs, Tensor | list) else {k: v[part] for k, v in outputs.items()}
        parts.append((kept, Ragged(targets[part]) if isinstance(targets, list) else targets[part]))
    return value_of_batches(name, parts, **settings)


def value_of_batches(name: str, batches: list[tuple[Any, Any]], **settings: Any) -> tuple[float, float | None]:
    """The same, of batches of (outputs, targets)."""
    measure = make_measure({"name": name, "settings": settings})
    found = [measure.values(outputs, Batch(torch.zeros(len(aims), 1), aims), None) for outputs, aims in batches]
    if measure.wide:
        widest = max(part.shape[1] for part in found)
        found = [torch.nn.functional.pad(part, (0, widest - part.shape[1])) for part in found]
    score = score_of(measure, torch.cat(found).numpy())
    return measure.scale.turned(score.value), score.standard_error


def test_top_k_accuracy_is_torchmetrics() -> None:
    for k in (1, 2, 4):
        expected = tm.accuracy(LOGITS, CLASSES, task="multiclass", num_classes=5, top_k=k, average="micro")
        assert value("top_k_accuracy", LOGITS, CLASSES, k=k)[0] == pytest.approx(100 * float(expected))
    with pytest.raises(EvaluationError, match="all of 5 classes are right; choose a smaller k"):
        value("top_k_accuracy", LOGITS, CLASSES, k=5)


def test_macro_f1_and_balanced_accuracy_are_torchmetrics_and_scikit_learns() -> None:
    decided = LOGITS.argmax(1)
    f1 = of_classes.multiclass_f1_score(LOGITS, CLASSES, num_classes=5, average="macro")
    assert value("macro_f1", LOGITS, CLASSES)[0] == pytest.approx(100 * float(f1))
    expected = 100 * sk.balanced_accuracy_score(CLASSES, decided)
    assert value("balanced_accuracy", LOGITS, CLASSES)[0] == pytest.approx(expected)


def test_measures_of_labels_are_torchmetrics() -> None:
    whole = LABELS.long()
    precision = of_classes.multilabel_average_precision(LOGITS, whole, num_labels=5, average="macro")
    assert value("multilabel_average_precision", LOGITS, LABELS)[0] == pytest.approx(100 * float(precision), rel=1e-5)
    for average in ("macro", "micro"):
        for threshold in (0.5, 0.2):
            f1 = of_classes.multilabel_f1_score(LOGITS, whole, num_labels=5, average=average, threshold=threshold)
            found, _ = value("multilabel_f1", LOGITS, LABELS, average=average, threshold=threshold)
            assert found == pytest.approx(100 * float(f1), rel=1e-6)
    right = of_classes.multilabel_accuracy(LOGITS, whole, num_labels=5, average="micro")
    found, error = value("label_accuracy", LOGITS, LABELS)
    assert found == pytest.approx(100 * float(right), rel=1e-6)
    shares = 100 * ((LOGITS > 0).numpy() == LABELS.bool().numpy()).mean(1)
    assert error == pytest.approx(shares.std(ddof=1) / np.sqrt(90))


def test_labels_that_no_example_has_are_left_out_and_none_at_all_is_an_error() -> None:
    some = LABELS.clone()
    some[:, 2] = 0
    kept = [0, 1, 3, 4]
    expected = sk.average_precision_score(some[:, kept], LOGITS[:, kept], average="macro")
    assert value("multilabel_average_precision", LOGITS, some)[0] == pytest.approx(100 * expected)
    with pytest.raises(EvaluationError, match="no example has any label"):
        value("multilabel_average_precision", LOGITS, torch.zeros(90, 5))


def test_measures_of_numbers_are_torchmetrics() -> None:
    exact, aims = LOGITS.double(), NUMBERS.double()
    assert value("mean_squared_error", exact, aims)[0] == pytest.approx(float(tm.mean_squared_error(exact, aims)))
    assert value("mean_absolute_error", exact, aims)[0] == pytest.approx(float(tm.mean_absolute_error(exact, aims)))
    assert value("r2", exact, aims)[0] == pytest.approx(100 * float(tm.r2_score(exact, aims)))
    with pytest.raises(EvaluationError, match="all targets of an output are equal"):
        value("r2", exact, torch.ones(90, 5))


@pytest.mark.parametrize("background", [True, False])
def test_measures_of_pixels_are_torchmetrics(background: bool) -> None:
    own = {"num_classes": 4, "ignore_index": -100}
    there = slice(0 if background else 1, None)
    each = of_classes.multiclass_jaccard_index(MAPS, MASKS, average=None, **own)[
        there
    ]  # all four are decided somewhere
    for outputs in (MAPS, {"out": MAPS, "aux": -MAPS}):
        found, error = value("mean_iou", outputs, MASKS, background=background)
        assert found == pytest.approx(100 * float(each.mean()), rel=1e-6)
        assert error is not None
    each = of_classes.multiclass_f1_score(MAPS, MASKS, average=None, **own)[there]
    assert value("dice", MAPS, MASKS, background=background)[0] == pytest.approx(100 * float(each.mean()), rel=1e-6)


def test_one_channel_tells_two_classes_apart() -> None:
    single, masks = MAPS[:, :1], MASKS.clamp(max=1)
    both = torch.cat([torch.zeros_like(single), single], dim=1)
    for name in ("mean_iou", "dice"):
        assert value(name, single, masks) == value(name, both, masks)
    iou = of_classes.binary_jaccard_index(single[:, 0], masks, ignore_index=-100)
    assert value("mean_iou", single, masks, background=False)[0] == pytest.approx(100 * float(iou), rel=1e-6)


def test_classes_that_nothing_is_of_do_not_count_and_no_pixel_at_all_is_an_error() -> None:
    logits = torch.zeros(1, 3, 1, 4)
    logits[0, 0, 0, :2], logits[0, 1, 0, 2:] = 1, 1  # decided: 0 0 1 1
    masks = torch.tensor([[[0, 1, 1, -100]]])
    assert value("mean_iou", logits.repeat(3, 1, 1, 1), masks.repeat(3, 1, 1))[0] == pytest.approx(50.0)  # 1/2, 1/2
    assert value("dice", logits.repeat(3, 1, 1, 1), masks.repeat(3, 1, 1))[0] == pytest.approx(100 * 2 / 3)
    with pytest.raises(EvaluationError, match="no pixel of a class that counts"):
        value("mean_iou", logits.repeat(3, 1, 1, 1), torch.full((3, 1, 4), -100))


def boxes(*rows: tuple[float, ...]) -> dict[str, Tensor]:
    made = torch.tensor(rows, dtype=torch.float32).reshape(len(rows), -1)
    found = {"boxes": made[:, :4], "labels": made[:, 4].long() if len(rows) else torch.zeros(0).long()}
    return {**found, "scores": made[:, 5]} if made.shape[1] > 5 else found


SQUARE, OTHER = (0.0, 0, 10, 10), (20.0, 20, 30, 30)


def test_mean_average_precision_is_that_by_hand() -> None:
    there = [boxes((*SQUARE, 1), (*OTHER, 1)), boxes((*SQUARE, 2)), boxes((*SQUARE, 1))]
    right = [boxes((*SQUARE, 1, 0.9), (*OTHER, 1, 0.8)), boxes((*SQUARE, 2, 0.7)), boxes((*SQUARE, 1, 0.6))]
    assert value("mean_average_precision", right, there)[0] == pytest.approx(100.0)
    # class 1: of three boxes the first answer is right, the second wrong, the third right: precisions 1, 1/2, 2/3;
    # at recalls 0..1/3 the best precision from there on is 1, up to 2/3 it is 2/3, beyond it is 0; 34, 33, 34 recalls
    some = [boxes((*SQUARE, 1, 0.9)), boxes((*SQUARE, 2, 0.5)), boxes((*OTHER, 1, 0.8), (*SQUARE, 1, 0.7))]
    by_hand = ((34 * 1 + 33 * 2 / 3) / 101 + 1) / 2
    assert value("mean_average_precision", some, there)[0] == pytest.approx(100 * by_hand)


def test_overlap_decides_what_is_found() -> None:
    there = [boxes((0, 0, 10, 10, 1))] * 3
    off = [boxes((0, 0, 10, 8, 1, 0.9))] * 3  # intersection over union 0.8: 7 of 10 overlaps, 0.5 to 0.8
    assert value("mean_average_precision", off, there)[0] == pytest.approx(70.0)
    assert value("mean_average_precision", off, there, overlap=0.75)[0] == pytest.approx(100.0)
    assert value("mean_average_precision", off, there, overlap=0.85)[0] == pytest.approx(0.0)


def test_images_without_boxes_or_answers_count_and_crowds_need_not_be_found() -> None:
    nothing: dict[str, Tensor] = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0).long(),
        "scores": torch.zeros(0),
    }
    wrong = [boxes((*SQUARE, 1, 0.9)), nothing, boxes((*SQUARE, 1, 0.8))]
    there = [boxes((*SQUARE, 1)), nothing, {key: nothing[key] for key in ("boxes", "labels")}]
    assert value("mean_average_precision", wrong, there)[0] == pytest.approx(100.0)  # the wrong alarm has a lower score
    crowd = {**boxes((*OTHER, 1)), "iscrowd": torch.tensor([1])}
    assert value("mean_average_precision", wrong, [there[0], crowd, there[2]])[0] == pytest.approx(100.0)
    with pytest.raises(EvaluationError, match="no image has any object"):
        value("mean_average_precision", [nothing] * 3, [nothing] * 3)


def test_any_metric_of_torchmetrics_is_what_it_is() -> None:
    arguments = {"num_classes": 5}
    kappa = of_classes.multiclass_cohen_kappa(LOGITS, CLASSES, **arguments)
    found, error = value(
        "torchmetrics", LOGITS, CLASSES, metric="classification.MulticlassCohenKappa", arguments=arguments
    )
    assert found == pytest.approx(float(kappa), rel=1e-6)
    assert error is not None
    lower = make_measure({"name": "torchmetrics", "settings": {"metric": "MeanSquaredLogError"}})
    assert not lower.higher_is_better
    masked = of_classes.multiclass_jaccard_index(MAPS, MASKS, num_classes=4, ignore_index=-100)
    own = {"num_classes": 4, "ignore_index": -100}
    found, _ = value("torchmetrics", MAPS, MASKS, metric="classification.MulticlassJaccardIndex", arguments=own)
    assert found == pytest.approx(float(masked), rel=1e-6)


def test_examples_of_other_batches_may_have_other_shapes_for_metrics_of_torchmetrics() -> None:
    made, batches = torch.Generator().manual_seed(1), []
    for length, examples in ((2, 3), (4, 5), (4, 1), (2, 2), (3, 4)):
        aims = torch.randint(3, (examples, length), generator=made)
        batches.append((aims, torch.randn(examples, 3, length, generator=made)))
    own = {"metric": "classification.MulticlassAccuracy", "arguments": {"num_classes": 3, "average": "micro"}}
    perfect = [(torch.nn.functional.one_hot(aims, 3).movedim(-1, 1).float(), aims) for aims, _ in batches]
    assert value_of_batches("torchmetrics", perfect, **own)[0] == 1.0
    flat_aims = torch.cat([aims.flatten() for aims, _ in batches])
    flat = torch.cat([outputs.movedim(1, -1).reshape(-1, 3) for _, outputs in batches])
    expected = of_classes.multiclass_accuracy(flat, flat_aims, num_classes=3, average="micro")
    found, error = value_of_batches("torchmetrics", [(outputs, aims) for aims, outputs in batches], **own)
    assert found == pytest.approx(float(expected))
    assert error is not None


def test_r2_of_examples_with_other_numbers_of_outputs_is_an_error() -> None:
    batches = [(LOGITS[:9, :3], NUMBERS[:9, :3]), (LOGITS[9:], NUMBERS[9:])]
    with pytest.raises(EvaluationError, match="examples have from 3 to 5 of them; choose mean_squared_error"):
        value_of_batches("r2", batches)


def test_the_jackknife_of_a_mean_is_the_standard_error_of_the_mean() -> None:
    values = NUMBERS[:20, 0].double().numpy()
    found, error = with_jackknife(lambda rows: float(rows.mean()), values)
    assert found == values.mean()
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(20))
    assert with_jackknife(lambda rows: float(rows.mean()), values[:1])[1] is None


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("top_k_accuracy", {"k": 0}, "k must be a whole number of at least 1"),
        ("multilabel_f1", {"average": "weighted"}, "average must be macro or micro"),
        ("multilabel_f1", {"threshold": 1.5}, "threshold must be between 0 and 1"),
        ("mean_average_precision", {"overlap": 50}, "overlap must be between 0 and 1"),
        ("mean_average_precision", {"overlap": "0.5"}, "overlap must be between 0 and 1"),
        ("dice", {"background": "no"}, "background must be true or false"),
        ("torchmetrics", {"metric": "CohenKappa", "higher_is_better": "false"}, "must be true, false or null"),
        ("torchmetrics", {"metric": "classification.MulticlasAUROC"}, "Did you mean 'MulticlassAUROC'"),
        ("torchmetrics", {"metric": "nowhere.Metric"}, "cannot be imported"),
        ("torchmetrics", {"metric": "CohenKappa", "arguments": {"zzz": 1}}, "cannot be made with"),
    ],
)
def test_settings_out_of_range_are_one_clear_error(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_measure({"name": name, "settings": settings})


@pytest.mark.parametrize(
    ("name", "outputs", "targets", "message"),
    [
        ("multilabel_f1", LOGITS[:, :4], LABELS, "targets of 0 and 1 of the same shape"),
        ("mean_squared_error", LOGITS, NUMBERS[:, :3], "outputs and targets of one shape"),
        ("accuracy", LOGITS, [boxes((*SQUARE, 1))], "needed as targets, got Ragged"),
        ("mean_iou", MAPS[:, :2], MASKS, "class number 2 for a network that tells 2 classes apart"),
        ("mean_iou", MAPS[..., :3], MASKS, "let the network return maps of the size of the masks"),
        ("mean_average_precision", MAPS, [boxes((*SQUARE, 1))] * 12, "for each of 4 images, got Tensor"),
        (
            "mean_average_precision",
            [{"boxes": torch.zeros(2, 4), "scores": torch.zeros(2), "labels": [1]}] * 3,
            [boxes((*SQUARE, 1))] * 3,
            "each box needs four numbers and one label",
        ),
    ],
)
def test_outputs_that_do_not_fit_are_one_clear_error(name: str, outputs: Any, targets: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        value(name, outputs, targets)


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_f1_of_a_single_label_is_that_of_the_label_and_not_of_its_absence_too(average: str) -> None:
    found, there = torch.tensor([1.0, 1, -1, -1, -1]), torch.tensor([1.0, 0, 0, 0, 1])
    expected = 100 * sk.f1_score(there, found > 0)  # of the class that is there
    assert value("multilabel_f1", found[:, None], there[:, None], average=average)[0] == pytest.approx(expected)


def test_numbers_and_labels_are_compared_with_the_base_network_without_a_softmax() -> None:
    """A shift of all outputs changes every one of them, and leaves their softmax as it is."""
    measure = of_numbers(make_measure("divergence"))
    assert measure is not None
    shifted = measure.settled(LOGITS).values(LOGITS + 1, Batch(LOGITS, LABELS), LOGITS)
    expected = LOGITS.shape[1] / np.square(LOGITS.double().numpy()).sum(1)
    np.testing.assert_allclose(shifted.numpy(), expected, rtol=1e-5)
