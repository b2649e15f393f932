"""The evidence of one group, collected from the model and from what was gathered: rows are channels, in order."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.importance.evidence import Curvature, Gradients, GroupEvidence, InputMoments, Need
from autoprune.importance.gathering import GatheredEvidence
from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.groups import AxisLayout, BoolArray, SearchSpace
from autoprune.space.options.ties import set_ranges
from autoprune.statistics.rows import weight_matrix


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
    gathered: GatheredEvidence | None = None,
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
    layers = tuple(member.name.rpartition(".")[0] for member in owned)
    kernels = tuple(tuple(of_model(m.name).shape[2:]) if m.dim < 2 else () for m in owned)
    found = GroupEvidence(width, rows(of_model), scales, layers=layers, kernels=kernels)
    given: dict[str, Any] = {}
    if "readers" in needs:
        given["readers"] = tuple(member.rows(of_model(member.name), width) for member in read)
    if gathered is None or not gathered.saw(group, start, width):
        return replace(found, **given)
    if "activations" in needs:
        given["activations"] = gathered.activations(group, start, width)
    if "inputs" in needs:
        seen = [member for member in read if member.name in gathered.inputs]
        given["readers"] = tuple(member.rows(of_model(member.name), width) for member in seen)
        given["inputs"] = tuple(m.rows(_spread(of_model(m.name), m, gathered.inputs[m.name]), width) for m in seen)
    if "pooled" in needs and gathered.pooled is not None:
        given["pooled"] = gathered.pooled[:, gathered.slots.part(group, start, width)].T
    if "maps" in needs:
        given["maps"] = _maps(read, gathered, width) or None
    if "moments" in needs:
        given["moments"] = (
            tuple(_moments(model, m, start, gathered) for m in read if m.name in gathered.consumed) or None
        )
    by_gate = gathered.gate_means(group, start, width)
    if "gradients" in needs and by_gate is not None:
        products, squares = (rows(lambda name, i=i: gathered.products[name][i]) for i in (0, 1))  # type: ignore[misc]
        given["gradients"] = Gradients(by_gate[0], by_gate[1], products, squares, by_gate[3])
    if "curvature" in needs and by_gate is not None:
        given["curvature"] = Curvature(by_gate[2])
    return replace(found, **given)


def _maps(read: list[_Member], gathered: GatheredEvidence, width: int) -> tuple[Tensor, ...]:
    """(width, examples, height, width) of each call of each reader."""
    found = []
    for member in read:
        for (name, _), maps in gathered.maps.items():
            if name == member.name:
                found.append(member.positions(maps, width))
    return tuple(found)


def _moments(model: nn.Module, member: _Member, start: int, gathered: GatheredEvidence) -> InputMoments:
    """Of a weight that reads the channels."""
    moments = gathered.consumed[member.name]
    call, groups = moments.consumer.call, len(moments.second)
    channel = np.where(member.chosen, member.axis.channel - start, -1)
    of_input = channel.reshape(groups, -1) if call.kind == "transposed" else np.tile(channel, (groups, 1))
    of_element = np.repeat(of_input, moments.second.shape[1] // of_input.shape[1], axis=1)
    weight = weight_matrix(call, tensor_of(model, member.name).detach()).to(moments.second)
    place = torch.from_numpy(of_element).to(weight.device)
    inverses = gathered.inverses.setdefault(member.name, {})
    return InputMoments(weight, moments.second, moments.mean, place, moments.count, inverses)


def _spread(weight: Tensor, member: _Member, squares: Tensor) -> Tensor:
    """In the shape of a weight, the mean square of what each of its elements multiplies.

    In a grouped convolution that differs from one group of its outputs to the next.
    """
    shape = [1] * weight.ndim
    shape[member.dim] = weight.shape[member.dim]
    groups = len(squares) // weight.shape[member.dim]
    if groups <= 1 or member.dim != 1:
        return squares.reshape(shape).expand(weight.shape)
    of_group = squares.reshape(groups, *shape[1:]).repeat_interleave(len(weight) // groups, dim=0)
    return of_group.expand(weight.shape)


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    """The axis of a tensor along which channels lie."""

    name: str
    dim: int
    axis: AxisLayout
    chosen: BoolArray

    def rows(self, tensor: Tensor, width: int) -> Tensor:
        """(width, n): all entries of each channel, also where a channel has several indices."""
        order = self._order(1).to(tensor.device)
        return tensor.index_select(self.dim, order).movedim(self.dim, 0).reshape(width, -1)

    def positions(self, maps: Tensor, width: int) -> Tensor:
        """(width, examples, height, width): several indices of a channel lie below one another."""
        order = self._order(maps.shape[1] // len(self.axis.group)).to(maps.device)
        picked = maps.index_select(1, order).reshape(len(maps), width, -1, maps.shape[3])
        return picked.movedim(1, 0)

    def _order(self, repeats: int) -> Tensor:
        """Indices of the chosen channels, channel by channel; a grouped convolution reads the axis several times."""
        chosen, channel = np.tile(self.chosen, repeats), np.tile(self.axis.channel, repeats)
        indices = np.flatnonzero(chosen)
        return torch.from_numpy(indices[np.argsort(channel[indices], kind="stable")])


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
