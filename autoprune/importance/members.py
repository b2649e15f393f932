"""What a criterion sees of a group, one row per channel, aligned over members; and scores from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.config.parts import ChosenPart, NamedPart
from autoprune.config.settings import bind
from autoprune.errors import ConfigError, EvaluationError, blame
from autoprune.importance import CRITERIA
from autoprune.importance.evidence import (
    NETWORK,
    Activations,
    Calibration,
    Curvature,
    Gathered,
    Gradients,
    Need,
    gather,
    needs_of,
)
from autoprune.importance.network_scores import NetworkCriterion, network_scores
from autoprune.space.cutting.slicing import Ranking, check_model, tensor_of
from autoprune.space.groups import AxisLayout, BoolArray, FloatArray, SearchSpace
from autoprune.space.kinds import KINDS
from autoprune.space.options.ties import rank_slots, set_ranges


@final
@dataclass(frozen=True, slots=True, eq=False)
class GroupEvidence:
    """What a criterion sees of one width group, or of one of the sets that are tied in it.

    Of all but the first three only what the criterion needs is there.

    Attributes:
        width: number of channels.
        filters: one (width, n) tensor per weight or bias that writes the channels; where none does (an embedding tied
            to the last layer), one per weight that reads them.
        norm_scales: one (width,) tensor per batch norm of the group.
        readers: one (width, n) tensor per weight that reads the channels.
        activations: moments of what the readers get.
        gradients: first-order terms.
        curvature: second-order terms.
    """

    width: int
    filters: tuple[Tensor, ...]
    norm_scales: tuple[Tensor, ...]
    readers: tuple[Tensor, ...] = ()
    activations: Activations | None = None
    gradients: Gradients | None = None
    curvature: Curvature | None = None


GroupTensors = GroupEvidence
"""The name that it had before criteria could ask for more than weights."""

Criterion: TypeAlias = Callable[[GroupEvidence, np.random.Generator], Tensor]
"""(evidence of a group, random generator) -> (width,) importance, at least 0; the tensors are only read. Keywords after
these two are its settings; what it needs besides weights is said by `evidence.criterion`."""


def channel_scores(
    model: nn.Module,
    space: SearchSpace,
    criterion: ChosenPart,
    *,
    seed: int = 0,
    calibration: Calibration | None = None,
) -> list[FloatArray]:
    """Score every channel of every group, each tied set by itself; the model is only read.

    Args:
        model: the network that was traced.
        space: its space.
        criterion: a name, or {"name": …, "settings": {…}}.
        seed: of the criterion, where it is random.
        calibration: data, for a criterion that needs more than weights.

    Returns:
        Per group (slots,) scores; a slot is a channel. A block that can be left out has the score 1.

    Raises:
        RegistryError: no such criterion.
        ConfigError: a setting that it does not have, it fails, or data that it needs are missing.
        SpaceError: the model is not the one that was traced.
        EvaluationError: the criterion gave a wrong shape or something that is not a finite number.
    """
    chosen = NamedPart.of(criterion, "criterion")
    score: Criterion = bind(CRITERIA, chosen.name, chosen.settings)
    what = f"criterion {chosen.label!r}"
    check_model(model, space)
    needs = needs_of(CRITERIA.get(chosen.name))
    rng = np.random.default_rng(seed)
    if needs & NETWORK:
        at_once: NetworkCriterion = bind(CRITERIA, chosen.name, chosen.settings)
        return network_scores(at_once, model, space, needs, calibration, rng, what=what)
    gathered = gather(model, space, needs, calibration, what=what)
    scores = []
    for index, group in enumerate(space.groups):
        if not KINDS[group.kind].ranked:  # a block as a whole: nothing to rank
            scores.append(np.ones(group.slots))
            continue
        of_sets = []
        for number, (_, width) in enumerate(set_ranges(group)):
            evidence = group_evidence(model, space, index, number, needs=needs, gathered=gathered)
            _check_seen(evidence, needs, f"{what} needs", group.name)
            failing = blame(ConfigError, f"{what} fails", then="Correct its settings or its code.")
            with failing, torch.no_grad():
                values = score(evidence, rng).double().cpu().numpy()
            if values.shape != (width,) or not np.isfinite(values).all():
                raise EvaluationError(
                    f"{what} must give {width} finite numbers for group {group.name!r}, got shape "
                    f"{values.shape}; weights that are not finite cause this: check the base network"
                )
            of_sets.append(values)
        scores.append(np.concatenate(of_sets))
    return scores


def rank_channels(
    model: nn.Module,
    space: SearchSpace,
    criterion: ChosenPart,
    *,
    seed: int = 0,
    calibration: Calibration | None = None,
) -> Ranking:
    """Sort the channels of every group once, most important first."""
    return ranking_of(space, channel_scores(model, space, criterion, seed=seed, calibration=calibration))


def ranking_of(space: SearchSpace, scores: Sequence[FloatArray]) -> Ranking:
    """Rank the channels of every group by their (slots,) scores, those of each tied set among themselves."""
    return tuple(rank_slots(group, score) for group, score in zip(space.groups, scores, strict=True))


def unit_scores(space: SearchSpace, scores: Sequence[FloatArray]) -> list[FloatArray]:
    """Per group (width,) scores, what one more unit of width brings: the sum over the channels that come with it.

    They are the (slots,) channel scores themselves where nothing is tied.
    """
    ranking = ranking_of(space, scores)
    return [
        np.bincount(rank, weights=score, minlength=group.width).astype(np.float64) if group.sets else score
        for group, rank, score in zip(space.groups, ranking, scores, strict=True)
    ]


def group_tensors(model: nn.Module, space: SearchSpace, group: int, number: int = 0) -> GroupEvidence:
    """The weights of one group; see `group_evidence`."""
    return group_evidence(model, space, group, number)


def group_evidence(
    model: nn.Module,
    space: SearchSpace,
    group: int,
    number: int = 0,
    *,
    needs: Collection[Need] = (),
    gathered: Gathered | None = None,
) -> GroupEvidence:
    """Collect what is known of the channels of one group, rows in channel order.

    Args:
        model: the network that was traced; only read.
        space: its space.
        group: index of the group.
        number: which of the group's tied sets; 0 where nothing is tied.
        needs: which parts, besides filters and scales.
        gathered: what was gathered on data.
    """
    start, width = list(set_ranges(space.groups[group]))[number]
    members = _members(model, space, group, start, width)
    written, read = members["written"], members["read"]
    owned = written or read

    def rows(tensor: Callable[[str], Tensor]) -> tuple[Tensor, ...]:
        return tuple(member.rows(tensor(member.name), width) for member in owned)

    def of_model(name: str) -> Tensor:
        return tensor_of(model, name).detach()

    scales = tuple(member.rows(of_model(member.name), width).flatten() for member in members["scales"])
    readers = tuple(member.rows(of_model(member.name), width) for member in read) if "readers" in needs else ()
    activations = gradients = curvature = None
    if gathered is not None:
        activations = gathered.activations(group, start, width) if "activations" in needs else None
        by_gate = gathered.gate_means(group, start, width)
        if "gradients" in needs and by_gate is not None:
            products, squares = (rows(lambda name, i=i: gathered.products[name][i]) for i in (0, 1))  # type: ignore[misc]
            gradients = Gradients(by_gate[0], by_gate[1], products, squares, by_gate[3])
        curvature = Curvature(by_gate[2]) if "curvature" in needs and by_gate is not None else None
    return GroupEvidence(width, rows(of_model), scales, readers, activations, gradients, curvature)


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    """The axis of a tensor along which channels lie."""

    name: str
    dim: int
    axis: AxisLayout
    chosen: BoolArray

    def rows(self, tensor: Tensor, width: int) -> Tensor:
        return _rows(tensor, self.dim, self.axis, self.chosen, width)


def _members(model: nn.Module, space: SearchSpace, group: int, start: int, width: int) -> dict[str, list[_Member]]:
    found: dict[str, list[_Member]] = {"written": [], "read": [], "scales": []}
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}

    def inside(axis: AxisLayout) -> BoolArray:
        mine: BoolArray = (axis.group == group) & (axis.channel >= start) & (axis.channel < start + width)
        return mine

    for layout in space.tensors:
        axes = {d: axis for d, axis in enumerate(layout.axes) if axis is not None and inside(axis).any()}
        if layout.kind == "buffer" or not axes:
            continue
        path, _, attribute = layout.name.rpartition(".")
        if path in norms:
            if attribute == "weight":
                dim = min(axes)
                found["scales"].append(_Member(layout.name, dim, axes[dim], inside(axes[dim])))
            continue
        for kind in ("written", "read"):
            dims = [dim for dim in axes if (dim in layout.reads) == (kind == "read")]
            if dims:
                found[kind].append(_Member(layout.name, dims[0], axes[dims[0]], inside(axes[dims[0]])))
    return found


def _check_seen(evidence: GroupEvidence, needs: Collection[Need], what: str, group: str) -> None:
    """Check that all that was to be gathered of a group was; raises EvaluationError."""
    for need in ("activations", "gradients", "curvature"):
        if need in needs and getattr(evidence, need) is None:
            raise EvaluationError(
                f"{what} {need}, and no convolution or matrix product was seen that reads the channels of group "
                f"{group!r} (a fused operator hides it): choose a criterion of weights, or exclude that group"
            )


def _rows(tensor: Tensor, dim: int, axis: AxisLayout, chosen: BoolArray, width: int) -> Tensor:
    """(width, n): all entries of each channel, also where a channel has several indices."""
    indices = np.flatnonzero(chosen)
    order = indices[np.argsort(axis.channel[indices], kind="stable")]
    picked = tensor.index_select(dim, torch.from_numpy(order).to(tensor.device)).movedim(dim, 0)
    return picked.reshape(width, -1)
