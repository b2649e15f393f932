"""Mean average precision of detections, as COCO's own code counts it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError
from autoprune.measures.base import Measure, Values

DETECTED: Final = ("boxes", "scores", "labels")
"""What a network says of each image: (D, 4) corners left, top, right, bottom; (D,) scores; (D,) class numbers."""


@final
class MeanAveragePrecision(Measure):
    """Mean over classes and overlaps of the average precision in percent: COCO's AP, 101 recalls, 100 boxes an image.

    Lin et al. 2014, Microsoft COCO, arXiv 1405.0312, section 5; computed by pycocotools. Outputs are one mapping of
    `boxes`, `scores` and `labels` for each image, targets one of `boxes` and `labels`, and, where there are crowds that
    nobody has to find, `iscrowd`. Its noise is not known.

    Args:
        overlap: least intersection over union of a box that is found, between 0 and 1; None: the mean over 0.5, 0.55,
            up to 0.95.

    Raises:
        ConfigError: an overlap out of range, or pycocotools is not installed.
    """

    name, unit, lowest, highest, wide = "mean_average_precision", "%", 0.0, 100.0, True

    decode: Callable[[Any, Any], Any] | None = None
    """(outputs, images) -> detections of each image, where the network returns something else; the task sets it."""

    def __init__(self, *, overlap: float | None = None) -> None:
        number = isinstance(overlap, int | float) and not isinstance(overlap, bool)
        if overlap is not None and not (number and 0 < overlap < 1):
            raise ConfigError(f"mean_average_precision: overlap must be between 0 and 1, or None, got {overlap!r}")
        if importlib.util.find_spec("pycocotools") is None:
            raise ConfigError(
                "mean_average_precision is computed by pycocotools, which is not installed: pip install "
                "'autoprune[detection]', or choose another measure"
            )
        self.overlap = overlap

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """Return (N, 2 + 6 (D + T)): how many boxes are found and there, then all of them; see `Measure.values`.

        Raises:
            EvaluationError: outputs or targets of another form.
        """
        if self.decode is not None:
            outputs = self.decode(outputs, images_of(batch))
        images = zip(detections(outputs, len(batch)), wanted(batch.targets, len(batch)), strict=True)
        rows = [
            torch.cat([torch.tensor([len(f), len(t)], dtype=torch.float64), f.flatten(), t.flatten()])
            for f, t in images
        ]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def sound(self, outputs: Any, examples: int) -> Tensor:
        """See `Measure.sound`: boxes and scores, or what they are made of, are numbers."""
        if self.decode is not None:
            return super().sound(outputs, examples)
        found = detections(outputs, examples)
        return torch.tensor([bool(one.isfinite().all()) for one in found])

    def combine(self, values: Values) -> tuple[float, float | None]:
        """See `Measure.combine`.

        Raises:
            EvaluationError: no image has any object.
        """
        found, there = zip(*map(_unpacked, values), strict=True)
        if not any(len(boxes) for boxes in there):
            raise EvaluationError(f"{self.name}: no image has any object; give images with some")
        return 100 * _average_precision(found, there, self.overlap), None


def images_of(batch: Batch) -> Any:
    """The images of a batch, stacked or a list."""
    return batch.inputs[0] if isinstance(batch.inputs, tuple) else batch.inputs


def detections(outputs: Any, images: int) -> list[Tensor]:
    """(D, 6) boxes, scores and labels that a network found in each image, in double precision on the CPU.

    Raises:
        EvaluationError: outputs are something else.
    """
    given = list(outputs) if isinstance(outputs, tuple | list) else []
    if len(given) != images or not all(isinstance(one, Mapping) and set(DETECTED) <= set(one) for one in given):
        raise EvaluationError(
            f"mean_average_precision needs one mapping of boxes, scores and labels for each of {images} images, got "
            f"{type(outputs).__name__}; say how detections are made of what the network returns: a method "
            f"`detections(outputs, images)` of it, or the setting detections of the task"
        )
    return [_rows([one[name] for name in DETECTED], what="a detection") for one in given]


def wanted(targets: Any, images: int) -> list[Tensor]:
    """(T, 6) boxes, whether they are crowds, and labels that are there, likewise.

    Raises:
        EvaluationError: targets are something else.
    """
    given = list(targets) if isinstance(targets, tuple | list) else []
    if len(given) != images or not all(isinstance(one, Mapping) and {"boxes", "labels"} <= set(one) for one in given):
        raise EvaluationError(
            f"mean_average_precision needs one mapping of boxes and labels for each of {images} images as targets, got "
            f"{type(targets).__name__}"
        )
    crowds = [one["iscrowd"] if "iscrowd" in one else torch.zeros(len(one["labels"])) for one in given]
    return [
        _rows([one["boxes"], crowd, one["labels"]], what="a target") for one, crowd in zip(given, crowds, strict=True)
    ]


def _rows(parts: Sequence[Any], *, what: str) -> Tensor:
    boxes, extra, labels = (torch.as_tensor(part).detach().double().cpu() for part in parts)
    if extra.ndim != 1 or labels.shape != extra.shape or boxes.shape != (len(extra), 4):
        raise EvaluationError(
            f"mean_average_precision: {what} has boxes of shape {tuple(boxes.shape)} for labels of shape "
            f"{tuple(labels.shape)}; each box needs four numbers and one label"
        )
    return torch.cat([boxes, extra[:, None], labels[:, None]], dim=1)


def _unpacked(row: Values) -> tuple[Values, Values]:
    """(D, 6) and (T, 6)."""
    found, there = int(row[0]), int(row[1])
    boxes = row[2 : 2 + 6 * (found + there)].reshape(-1, 6)
    return boxes[:found], boxes[found:]


def _average_precision(found: Sequence[Values], there: Sequence[Values], overlap: float | None) -> float:
    """From 0 to 1."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labels = sorted({int(label) for boxes in there for label in boxes[:, 5]})
    truth, answers = COCO(), COCO()
    listed = {"images": [{"id": i} for i in range(len(there))], "categories": [{"id": label} for label in labels]}
    truth.dataset = {**listed, "annotations": _annotations(there, "iscrowd")}
    answers.dataset = {**listed, "annotations": _annotations(found, "score")}
    with contextlib.redirect_stdout(io.StringIO()):  # it reports what it does
        truth.createIndex()
        answers.createIndex()
        judged = COCOeval(truth, answers, "bbox")
        if overlap is not None:
            judged.params.iouThrs = np.array([overlap])
        judged.params.areaRng, judged.params.areaRngLbl = [[0, 1e10]], ["all"]
        judged.params.maxDets = [100]
        judged.evaluate()
        judged.accumulate()
    precision = judged.eval["precision"]
    known = precision[precision > -1]
    return float(known.mean()) if known.size else 0.0


def _annotations(images: Sequence[Values], extra: str) -> list[dict[str, Any]]:
    """As COCO's files have them; numbers of boxes begin with 1, as 0 means that there is none."""
    made: list[dict[str, Any]] = []
    for image, boxes in enumerate(images):
        for left, top, right, bottom, value, label in boxes.tolist():
            size = [left, top, right - left, bottom - top]
            own = {"iscrowd": int(value)} if extra == "iscrowd" else {"score": value, "iscrowd": 0}
            about = {"image_id": image, "category_id": int(label), "bbox": size, "area": size[2] * size[3]}
            made.append({"id": len(made) + 1, **about, **own})
    return made
