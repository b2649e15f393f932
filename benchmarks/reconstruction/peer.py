"""Torch-Pruning at the same FLOPs: one ratio on every layer, found by bisection, channels by each of its criteria."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from reconstruction.vit import Attention

_STEPS = 12
_LABELS = {"taylor", "hessian"}
_BREAKS = {"residual_predictor"}
"""What it cuts wrongly: the input of a grouped transposed convolution."""


@final
@dataclass(frozen=True, slots=True)
class PeerCut:
    """A network that Torch-Pruning made.

    Attributes:
        criterion: by its name there.
        model: the network.
        flops: share of the full network's.
        seconds: of the last cut, importances included.
    """

    criterion: str
    model: nn.Module
    flops: float
    seconds: float


def available() -> bool:
    """Whether the peer is installed."""
    try:
        import torch_pruning  # noqa: F401
    except ImportError:
        return False
    return True


def cuts(
    model: nn.Module, example: Tensor, flops: float, batches: list[tuple[Tensor, Tensor]]
) -> Iterator[PeerCut | tuple[str, str]]:
    """Yield a cut for each criterion, or (criterion, what went wrong).

    Args:
        model: the full network; only read.
        example: one input.
        flops: the share of FLOPs that each must not pass.
        batches: labelled, for the criteria that look at gradients.
    """
    for name in _importances():
        try:
            yield _bisected(name, model, example, flops, batches)
        except Exception as error:  # noqa: BLE001 - any error of the peer is its result
            yield name, f"{type(error).__name__}: {error}".splitlines()[0]


def _importances() -> dict[str, Callable[[], Any]]:
    from torch_pruning.pruner import importance as given

    return {
        "l1": lambda: given.MagnitudeImportance(p=1),
        "l2": lambda: given.MagnitudeImportance(p=2),
        "group_l2": lambda: given.GroupMagnitudeImportance(p=2),
        "bn_scale": lambda: given.BNScaleImportance(),
        "lamp": lambda: given.LAMPImportance(),
        "fpgm": lambda: given.FPGMImportance(),
        "taylor": lambda: given.GroupTaylorImportance(),
        "hessian": lambda: given.GroupHessianImportance(),
        "random": lambda: given.RandomImportance(),
    }


def _bisected(
    name: str, model: nn.Module, example: Tensor, flops: float, batches: list[tuple[Tensor, Tensor]]
) -> PeerCut:
    """The widest cut within the FLOPs; the ratio is found with the magnitude, which costs no gradients."""
    full = _flops(model, example)
    low, high = 0.0, 0.95
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _flops(_cut("l2", model, example, middle, batches), example) / full > flops:
            low = middle
        else:
            high = middle
    start = time.perf_counter()
    made = _cut(name, model, example, high, batches)
    return PeerCut(name, made.eval(), _flops(made, example) / full, time.perf_counter() - start)


def _cut(name: str, model: nn.Module, example: Tensor, ratio: float, batches: list[tuple[Tensor, Tensor]]) -> nn.Module:
    import torch_pruning

    own = copy.deepcopy(model).eval()
    layers = [m for m in own.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    heads = {p: m.heads for m in own.modules() if isinstance(m, Attention) for p in (m.query, m.key, m.value)}
    torch.manual_seed(0)
    importance = _importances()[name]()
    pruner = torch_pruning.pruner.MagnitudePruner(
        own,
        example,
        importance=importance,
        pruning_ratio=ratio,
        ignored_layers=[*layers[-1:], *(m for name, m in own.named_modules() if name in _BREAKS)],
        num_heads=heads,
        unwrapped_parameters=[(own.position, 2)] if hasattr(own, "position") else None,
    )
    if name in _LABELS:
        with _watched(name, importance):
            _gradients(name, own, importance, batches)
    pruner.step()
    own.zero_grad(set_to_none=True)
    return own


@contextmanager
def _watched(name: str, importance: Any) -> Iterator[None]:
    if name == "hessian":
        importance.zero_grad()
    yield


def _gradients(name: str, model: nn.Module, importance: Any, batches: list[tuple[Tensor, Tensor]]) -> None:
    """As its examples do: gradients of the mean loss, or of each example's."""
    model.zero_grad()
    for inputs, labels in batches:
        losses = F.cross_entropy(model(inputs), labels, reduction="none")
        if name == "taylor":
            losses.mean().backward()
            continue
        for loss in losses[:32]:
            model.zero_grad()
            loss.backward(retain_graph=True)
            importance.accumulate_grad(model)
        break


def _flops(model: nn.Module, example: Tensor) -> float:
    """Multiply-adds as fvcore counts them."""
    counted = FlopCountAnalysis(model, example).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return float(counted.total())
