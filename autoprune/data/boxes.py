"""What is in an image: boxes and labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoprune.errors import DataError

_LABELS = ("labels", "label", "category", "categories", "category_id", "class_labels")


def boxes_of(target: Any) -> dict[str, Tensor]:
    """A target as tensors: `boxes` (T, 4) corners, `labels` (T,), and `iscrowd` (T,) where it has that.

    Args:
        target: a mapping with `boxes` as corners, or with `bbox` as left, top, width, height, as COCO and `datasets`
            have them, and labels under one of the usual names; or a list of such mappings, one for each box.

    Raises:
        DataError: it is something else.
    """
    if isinstance(target, list | tuple) and all(isinstance(one, Mapping) for one in target):
        keys = target[0] if target else {"boxes": [], "labels": []}
        crowds = {"iscrowd": [_plain(one.get("iscrowd", 0)) for one in target]}
        shared = {key: [_plain(one[key]) for one in target] for key in keys if all(key in one for one in target)}
        target = shared | crowds if any("iscrowd" in one for one in target) else shared
    name = next((name for name in _LABELS if name in target), None) if isinstance(target, Mapping) else None
    corners = isinstance(target, Mapping) and "boxes" in target
    if name is None or not (corners or "bbox" in target):
        told = f"the keys {', '.join(map(str, target))}" if isinstance(target, Mapping) else type(target).__name__
        raise DataError(
            f"a target of detection must be a mapping with boxes (left, top, right, bottom) or bbox (left, top, width, "
            f"height) and labels, got {told}"
        )
    boxes = torch.as_tensor(target["boxes" if corners else "bbox"], dtype=torch.float32).reshape(-1, 4)
    given = torch.as_tensor(target[name]).reshape(-1)
    labels = given.long()
    if bool((labels != given).any()) or bool((labels < 0).any()):
        raise DataError(
            f"labels of boxes must be whole numbers from 0 on, got {given.tolist()[:20]}; number the classes"
        )
    if len(boxes) != len(labels):
        raise DataError(f"a target has {len(boxes)} boxes and {len(labels)} labels; give one label for each box")
    if not corners:
        boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
    crowd = {"iscrowd": torch.as_tensor(target["iscrowd"]).long().reshape(-1)} if "iscrowd" in target else {}
    if any(len(told) != len(boxes) for told in crowd.values()):
        raise DataError(
            f"a target has {len(boxes)} boxes and {len(crowd['iscrowd'])} entries of iscrowd; give one for each box"
        )
    return {"boxes": boxes, "labels": labels, **crowd}


def _plain(value: Any) -> Any:
    """Arrays as lists, of which torch makes one tensor."""
    return value.tolist() if isinstance(value, Tensor | np.ndarray) else value
