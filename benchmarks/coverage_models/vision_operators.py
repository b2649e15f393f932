"""Import torchvision also where its compiled operators do not fit the installed torch.

Its classification models need none of them, but its import registers shapes for two, and its detection models call
`nms` and `roi_align`; plain ones of the same signatures stand in then. Import this module before torchvision, timm and
transformers.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
)
_KEPT_ALIVE: list[torch.library.Library] = []  # a schema lives as long as its library


def _operators_exist() -> None:
    """In place of torchvision's check; a function of its own, since torch.jit compiles it."""


def _nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices of the boxes (N, 4) that no better scored box overlaps by more than `threshold`, best first."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = scores.argsort(descending=True)
    kept: list[Tensor] = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        low = torch.maximum(boxes[left, :2], boxes[best, :2])
        high = torch.minimum(boxes[left, 2:], boxes[best, 2:])
        shared = (high - low).clamp_min(0).prod(dim=1)
        left = left[shared <= threshold * (area[left] + area[best] - shared)]
    return torch.stack(kept) if kept else left


def _install() -> bool:
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    else:
        return True
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS:
        library.define(schema)
    _KEPT_ALIVE.append(library)
    importlib.import_module("torchvision")
    library.impl("nms", _nms, "CPU")
    boxes: Any = importlib.import_module("torchvision.ops.boxes")
    boxes._assert_has_ops = _operators_exist
    _install_roi_align(library)
    return False


def _install_roi_align(library: torch.library.Library) -> None:
    """One opaque operator with a gradient, as the compiled one is; its kernel is torchvision's own Python version."""
    module: Any = importlib.import_module("torchvision.ops.roi_align")
    kernel = module._roi_align.__wrapped__

    def shape(x: Tensor, rois: Tensor, scale: float, height: int, width: int, ratio: int, aligned: bool) -> Tensor:
        return x.new_empty(rois.shape[0], x.shape[1], height, width)

    def remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.inputs = inputs

    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *others = ctx.inputs
        _, pull = torch.func.vjp(lambda value: kernel(value, *others), x.detach())
        return (*pull(gradient), None, None, None, None, None, None)

    library.impl("roi_align", kernel, "CPU")
    torch.library.register_fake("torchvision::roi_align", shape, lib=library)
    torch.library.register_autograd("torchvision::roi_align", backward, setup_context=remember, lib=library)
    module._has_ops = lambda: True
    module._assert_has_ops = _operators_exist


COMPILED = _install()
"""Whether torchvision's own operators could be loaded."""
