"""How far the outputs of a network are from those of the base network."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, final, get_args

import torch
from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError
from autoprune.measures.base import Measure, rows_of
from autoprune.training.objectives.logits import IGNORED

Kind: TypeAlias = Literal["auto", "kl", "relative_error"]


@final
class Divergence(Measure):
    """KL(base || network) of the classes in nats, or the relative squared error of the outputs; needs no labels.

    With p the base network's softmax and q the network's, an example's value is sum_c p_c (log p_c - log q_c), the mean
    over positions where there are several, without those whose target is -100. It is 0 if and only if all
    probabilities are equal. The relative squared error of an example is |outputs - base|^2 / |base|^2, over all numbers
    of all output tensors that have a row for each example. Both are computed in double precision.

    Args:
        kind: "kl"; "relative_error"; "auto": kl where the outputs are one tensor (N, C) with C of at least 2, as
            classifiers give, relative_error where they are anything else. Say "relative_error" for a regression of
            several numbers, and "kl" with the axis for logits at many positions.
        axis: of the outputs, along which the classes lie; 1 as torch's cross entropy has it (images of logits), -1 for
            language models (N, positions, tokens).

    Raises:
        ConfigError: another kind, or an axis that is none.
    """

    name, higher_is_better, lowest = "divergence", False, 0.0
    needs_targets, needs_base = False, True

    def __init__(self, *, kind: Kind = "auto", axis: int = 1) -> None:
        if kind not in get_args(Kind):
            raise ConfigError(f"divergence: kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
        if not isinstance(axis, int) or isinstance(axis, bool) or axis == 0:
            raise ConfigError(f"divergence: axis must be a whole number other than 0, got {axis!r}; 0 is the batch")
        self.kind, self.axis = kind, axis

    @property
    def unit(self) -> str:  # type: ignore[override]  # depends on the kind
        """Nats of kl; a relative error has none, and "auto" not yet."""
        return "nats" if self.kind == "kl" else ""

    def settled(self, outputs: Any) -> Divergence:
        """See `Measure.settled`: "auto" becomes the kind that the outputs ask for."""
        return self if self.kind != "auto" else Divergence(kind=_kind_of(outputs), axis=self.axis)

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """Return (N,) nats or relative errors; see `Measure.values`.

        Raises:
            EvaluationError: outputs of another shape than the base network's; of kl, outputs that are no logits; of
                relative_error, a base network that answers with nothing but zeros.
        """
        theirs, ours = rows_of(base, len(batch)), rows_of(outputs, len(batch))
        shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (ours, theirs)]
        if not theirs or shapes[0] != shapes[1]:
            raise EvaluationError(
                f"divergence compares outputs of equal shapes, got {shapes[0]} and of the base network {shapes[1]}; "
                f"let forward return floating-point tensors with a row for each example, of shapes that widths do "
                f"not change"
            )
        kind = _kind_of(base) if self.kind == "auto" else self.kind
        return _kl(ours, theirs, self.axis, batch.targets) if kind == "kl" else _relative_error(ours, theirs)


def of_numbers(measure: Measure | None) -> Measure | None:
    """A measure for outputs that are no classes of which one is right: "auto" is relative_error, whatever their shape.

    Args:
        measure: of a job; others than divergence are as they are.
    """
    undecided = isinstance(measure, Divergence) and measure.kind == "auto"
    return Divergence(kind="relative_error") if undecided else measure


def _kind_of(outputs: Any) -> Kind:
    rows = isinstance(outputs, Tensor) and outputs.is_floating_point() and outputs.ndim == 2 and outputs.shape[1] > 1
    return "kl" if rows else "relative_error"


def _kl(ours: list[Tensor], theirs: list[Tensor], axis: int, targets: Any) -> Tensor:
    """(N,) nats, the mean over what is neither batch nor classes and counts; 0 where nothing does."""
    shape = tuple(theirs[0].shape)
    if len(theirs) != 1 or not -len(shape) < axis < len(shape) or shape[axis] < 2:
        raise EvaluationError(
            f"kl needs one tensor of logits with at least two classes along axis {axis}, got "
            f"{', '.join(str(tuple(tensor.shape)) for tensor in theirs)}; set axis, or choose kind: relative_error"
        )
    base = theirs[0].double()
    if bool((base >= 0).all()) and bool(((base.sum(axis) - 1).abs() < 1e-3).all()):
        raise EvaluationError(
            "kl needs logits, but the base network returns probabilities (they are at least 0 and add up to 1); let "
            "forward leave the softmax out, or return its logarithm"
        )
    log_p, log_q = base.log_softmax(axis), ours[0].double().log_softmax(axis)
    parts = torch.where(log_p.isneginf(), 0.0, log_p.exp() * (log_p - log_q))  # masked classes have p = 0
    each = parts.sum(axis)
    if (
        isinstance(targets, Tensor)
        and targets.shape == each.shape
        and each.ndim > 1
        and bool((targets == IGNORED).any())
    ):
        counts = (targets.to(each.device) != IGNORED).reshape(shape[0], -1)
        found = torch.where(counts, each.reshape(shape[0], -1), 0.0).sum(1) / counts.sum(1).clamp(min=1)
    else:
        found = each.reshape(shape[0], -1).mean(1)
    return found.clamp(min=0.0)


def _relative_error(ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
    """(N,) squared distance over squared length."""
    base, other = (torch.cat([t.reshape(len(t), -1).double() for t in tensors], 1) for tensors in (theirs, ours))
    length = base.square().sum(1)
    if not bool((length > 0).all()):
        raise EvaluationError(
            f"relative_error: the base network's outputs are all 0 for {int((length == 0).sum())} of {len(length)} "
            f"examples of a batch, so that no error is relative to them; leave such inputs out, or score by score_func"
        )
    return (other - base).square().sum(1) / length
