"""What can be cut: width groups, layer shapes and the space of widths they span.

Plain values, valid from birth; nothing here knows torch. `flops` counts one multiply-add as one FLOP everywhere.
Longer than others, as the values of a space check one another and are read together.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, final

import numpy as np

from autoprune.errors import SpaceError
from autoprune.space.arrays import BoolArray, FloatArray, IntArray, Widths
from autoprune.space.bits import LayerBits
from autoprune.space.density import LayerDensity
from autoprune.space.factors import LayerFactors
from autoprune.space.kinds import KINDS
from autoprune.space.kinds.columns import KindColumns
from autoprune.space.presence import Block, Presence
from autoprune.space.resolution import RESOLUTION, Resolution
from autoprune.space.sizes import Activation, AffineSize, KernelCall, Operation

__all__ = [
    "AxisLayout",
    "Block",
    "BoolArray",
    "FloatArray",
    "FrozenPart",
    "IntArray",
    "LayerBits",
    "LayerDensity",
    "LayerFactors",
    "Resolution",
    "SearchSpace",
    "StepLayout",
    "TensorLayout",
    "WidthGroup",
    "Widths",
    "axis_size",
    "with_all_blocks",
]


@final
@dataclass(frozen=True, slots=True)
class WidthGroup:
    """Channels that can only be cut together: producer outputs, norms, consumer inputs, residual partners.

    Attributes:
        name: the first layer that produces these channels.
        width: the number of channels of the unpruned network.
        choices: allowed kept-channel counts, ascending; the last one is `width`.
        members: every layer whose output channels are in the group, in graph order.
        residual: True where several layers write the same channels (a residual sum);
            `uniform_inner` keeps such groups full.
        kind: what one unit of width is, one of `KINDS`: "channels", "heads", "blocks".
        positions: output positions (batch x pixels or tokens) of the first producer; equal ones form a stage.
        sets: full channel counts of tied channel sets, each a multiple of `width`; () is one set of `width` channels.
            Of single weights: one set of all units.
        rows: units of single weights are compared with one another inside each of so many equal parts of them.
    """

    name: str
    width: int
    choices: Widths
    members: tuple[str, ...] = ()
    residual: bool = False
    kind: str = "channels"
    positions: int = 0
    sets: tuple[int, ...] = ()
    rows: int = 1

    def allows(self, width: float) -> bool:
        """True where the width is one of the choices."""
        index = bisect_left(self.choices, width)
        return index < len(self.choices) and self.choices[index] == width

    @property
    def slots(self) -> int:
        """Channels of all tied sets together; `width` where nothing is tied."""
        return sum(self.sets) or self.width

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SpaceError(f"group {self.name!r} cannot be of kind {self.kind!r}; kinds are {', '.join(KINDS)}")
        ascending = all(a < b for a, b in zip(self.choices, self.choices[1:], strict=False))
        least = KINDS[self.kind].least
        if not self.choices or not ascending or self.choices[0] < least or self.choices[-1] != self.width:
            raise SpaceError(
                f"group {self.name!r}: choices must ascend from at least {least} to the full width {self.width}, "
                f"got {self.choices}"
            )


@final
@dataclass(frozen=True, slots=True)
class FrozenPart:
    """Channels that stay as they are, and why.

    Attributes:
        name: the layer that produces the channels.
        channels: how many of its output channels are frozen.
        reason: one sentence for a person.
    """

    name: str
    channels: int
    reason: str


@final
@dataclass(frozen=True, eq=False)
class AxisLayout:
    """Which channel each index of a tensor axis belongs to.

    Attributes:
        group: (n,) index of the width group, -1 where the index is always kept.
        channel: (n,) slot inside the group (its channels, tied sets one after the other), 0 where `group` is -1.
    """

    group: IntArray
    channel: IntArray


def axis_size(axis: AxisLayout, groups: Sequence[WidthGroup]) -> AffineSize:
    """Return the size of an axis as an affine function of the widths."""
    members, counts = np.unique(axis.group[axis.group >= 0], return_counts=True)
    terms = tuple((int(g), int(n) // groups[int(g)].width) for g, n in zip(members, counts, strict=True))
    return AffineSize(int((axis.group < 0).sum()), terms)


@final
@dataclass(frozen=True, eq=False)
class TensorLayout:
    """A parameter or buffer and the layout of each of its axes (None: the axis is never cut).

    Attributes:
        name: its name in the state dict.
        names: all its names, more than one where tensors are tied or modules shared.
        reads: axes that multiply incoming channels (a convolution's input axis).
        dtype: of its elements, as torch names it.
    """

    name: str
    shape: tuple[int, ...]
    kind: Literal["parameter", "buffer"]
    axes: tuple[AxisLayout | None, ...]
    names: tuple[str, ...] = ()
    reads: tuple[int, ...] = ()
    dtype: str = "float32"


@final
@dataclass(frozen=True, eq=False)
class StepLayout:
    """Where the channels lie in one value of the exported graph.

    Attributes:
        name: the graph node that makes the value; outputs of a node with several are `name.0`, `name.1`, …
        axes: (dimension, layout) of every dimension that can be cut.
    """

    name: str
    axes: tuple[tuple[int, AxisLayout], ...]


@final
@dataclass(frozen=True, eq=False)
class SearchSpace:
    """Width groups with their allowed widths, the shapes that costs follow from, and what is frozen.

    Widths are tuples of kept-channel counts in the order of `groups`; matrices of widths are (N, G) int64.
    """

    groups: tuple[WidthGroup, ...]
    frozen: tuple[FrozenPart, ...] = ()
    operations: tuple[Operation, ...] = ()
    tensors: tuple[TensorLayout, ...] = ()
    notes: tuple[str, ...] = field(default=())  # for a person: what a space file changed, what was skipped
    steps: tuple[StepLayout, ...] = field(default=(), repr=False)
    form: Literal["module", "graph"] = "module"  # what a cut network is: the user's class, or the exported graph
    blocks: tuple[Block, ...] = ()  # in graph order, whether they are offered as groups or not
    activations: tuple[Activation, ...] = field(default=(), repr=False)  # values of the graph, in order
    calls: tuple[KernelCall, ...] = field(default=(), repr=False)  # calls of the graph, in order; see `shapes.py`
    densities: tuple[LayerDensity, ...] = ()  # one for each group of single weights
    factors: tuple[LayerFactors, ...] = ()  # one for each group of ranks
    bits: tuple[LayerBits, ...] = ()  # one for each group of bits
    resolution: Resolution | None = None  # of the group of that kind, if there is one
    why_graph: str = ""  # for a person, where the space was verified: what the user's class does wrong when cut

    def __post_init__(self) -> None:
        names = [group.name for group in self.groups]
        known = {block.group for block in self.blocks}
        dense = {(density.group, density.steps, density.units) for density in self.densities}
        low = {(factors.group, factors.highest + 1) for factors in self.factors}
        stored = {(bits.group, bits.full) for bits in self.bits}
        for group in self.groups:
            sides = () if self.resolution is None else self.resolution.sides
            if group.kind == "resolution" and (group.name, group.choices) != (RESOLUTION, sides):
                raise SpaceError(f"group {group.name!r} of kind 'resolution' has no costs at its sizes")
            if group.kind == "bits" and (group.name, group.width) not in stored:
                raise SpaceError(f"group {group.name!r} of kind 'bits' has no layer whose weights it stores")
            if group.kind == "ranks" and (group.name, group.width) not in low:
                raise SpaceError(f"group {group.name!r} of kind 'ranks' has no factors of its ranks")
            if KINDS[group.kind].single and (group.name, group.width, group.slots) not in dense:
                raise SpaceError(f"group {group.name!r} of kind {group.kind!r} has no density of its steps and units")
            if KINDS[group.kind].switches and group.name not in known:
                raise SpaceError(
                    f"every group of kind {group.kind!r} must name a block, one of {sorted(known)}; got {names}"
                )
        if len(set(names)) != len(names):
            raise SpaceError(f"group names must be distinct, got {sorted(n for n in names if names.count(n) > 1)}")

    @cached_property
    def full(self) -> Widths:
        """The unpruned widths."""
        return tuple(group.width for group in self.groups)

    @cached_property
    def smallest(self) -> Widths:
        """The smallest allowed width of every group."""
        return tuple(group.choices[0] for group in self.groups)

    @cached_property
    def kinds(self) -> KindColumns:
        """How the widths of all groups behave, each as its kind says."""
        return KindColumns([group.kind for group in self.groups], self.full)

    @cached_property
    def presence(self) -> Presence:
        """What can be left out, and by which group."""
        index = {group.name: number for number, group in enumerate(self.groups)}
        return Presence({index[block.group]: block for block in self.blocks if block.group in index})

    @cached_property
    def sparse(self) -> dict[str, tuple[int, LayerDensity]]:
        """Name of a tensor -> the group that says how many of its weights stay, and in which pattern."""
        index = {group.name: number for number, group in enumerate(self.groups)}
        return {density.tensor: (index[density.group], density) for density in self.densities}

    @cached_property
    def factored(self) -> dict[str, tuple[int, LayerFactors]]:
        """Name of a tensor -> the group that says at which rank it is factored, and how."""
        index = {group.name: number for number, group in enumerate(self.groups)}
        return {factors.tensor: (index[factors.group], factors) for factors in self.factors}

    @cached_property
    def rounded(self) -> dict[str, tuple[int, LayerBits]]:
        """Name of a tensor -> the group that says in how many bits its weights are stored, and how."""
        index = {group.name: number for number, group in enumerate(self.groups)}
        return {bits.tensor: (index[bits.group], bits) for bits in self.bits}

    @property
    def only_bits(self) -> bool:
        """True where weights are rounded and nothing is cut."""
        return bool(self.bits) and len(self.bits) == len(self.groups)

    def left_out(self, widths: Sequence[int]) -> tuple[Block, ...]:
        """The blocks that these widths switch off, in graph order."""
        return self.presence.left_out(widths)

    @cached_property
    def traced_batch(self) -> int:
        """The batch of the example that the space was traced with; 1 where no input has one."""
        inputs = (a for a in self.activations if a.batched and a.sizes and not a.sizes[0].terms)
        return next((max(1, a.sizes[0].constant) for a in inputs), 1)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of groups, choices and shapes: with the same one, two spaces give the same widths the same cost."""
        sizes = [[o.layer, o.kind, o.coefficient, [[s.constant, s.terms] for s in o.sizes]] for o in self.operations]
        uncut = {t.name for t in self.tensors if t.kind == "buffer" and not any(t.axes)}  # cost no FLOPs, no parameters
        tensors = [[t.name, t.shape] for t in self.tensors if t.name not in uncut]
        content: list[object] = [[[g.name, g.choices, g.sets] for g in self.groups], sizes, tensors, self.form]
        if self.presence.blocks:
            blocks = self.presence.blocks.items()
            content.append([[i, b.name, [name for name in b.tensors if name not in uncut]] for i, b in blocks])
        if self.densities:
            content.append([[d.tensor, d.steps, d.block, d.rows, d.pattern] for d in self.densities])
        if self.factors:
            content.append([[f.layer, f.shape, f.uses] for f in self.factors])
        if self.bits:
            content.append([[b.tensor, b.full, b.outputs] for b in self.bits])
        if self.resolution is not None:
            content.append([self.resolution.shape, self.resolution.sides, self.resolution.coefficients])
        text = json.dumps(content)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __contains__(self, widths: object) -> bool:
        return (
            isinstance(widths, tuple)
            and len(widths) == len(self.groups)
            and all(g.allows(w) for w, g in zip(widths, self.groups, strict=True))
        )

    def check(self, widths: Iterable[int]) -> Widths:
        """Return the widths as a tuple of ints.

        Raises:
            SpaceError: a wrong number of widths, or one that its group does not allow; names the group.
        """
        given = self._one_number_each(widths)
        for width, group in zip(given, self.groups, strict=True):
            if not group.allows(width):
                raise SpaceError(
                    f"group {group.name!r} cannot be {width:g} wide; allowed: {_short(group.choices)}. "
                    f"space.nearest(widths) rounds to the closest allowed widths"
                )
        return tuple(int(width) for width in given)

    def uniform(self, ratio: float) -> Widths:
        """The allowed widths nearest to `ratio` times the full width, the same ratio in every group; no block goes.

        Raises:
            SpaceError: the ratio is not in (0, 1].
        """
        if not 0 < ratio <= 1:
            raise SpaceError(f"a uniform ratio must be above 0 and at most 1, got {ratio}")
        return self.nearest([ratio * g.width if KINDS[g.kind].scales else g.width for g in self.groups])

    def nearest(self, widths: Iterable[float]) -> Widths:
        """The member of the space nearest to these widths, group by group (ties go to the smaller width).

        Raises:
            SpaceError: not one finite number for each group.
        """
        return tuple(
            min(group.choices, key=lambda choice, w=width: (abs(choice - w), choice))  # type: ignore[misc]
            for width, group in zip(self._one_number_each(widths), self.groups, strict=True)
        )

    def by_name(self, widths: Sequence[int]) -> dict[str, int]:
        """Group name -> width."""
        return {group.name: int(w) for group, w in zip(self.groups, widths, strict=True)}

    def _one_number_each(self, widths: Iterable[float]) -> list[float]:
        try:
            given = [float(width) for width in widths]
        except (TypeError, ValueError) as error:
            raise SpaceError(f"widths must be one number for each group ({self._group_names()}): {error}") from error
        if len(given) != len(self.groups):
            raise SpaceError(f"{len(given)} widths given for {len(self.groups)} groups ({self._group_names()})")
        if not all(map(math.isfinite, given)):
            raise SpaceError(f"widths must be finite numbers, got {given}")
        return given

    def _group_names(self) -> str:
        names = [group.name for group in self.groups]
        return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")


def _short(choices: Widths) -> str:
    if len(choices) <= 12:
        return ", ".join(map(str, choices))
    if len(choices) == choices[-1] - choices[0] + 1:
        return f"{choices[0]} to {choices[-1]}"
    return f"{', '.join(map(str, choices[:5]))}, …, {choices[-1]}"


def with_all_blocks(space: SearchSpace, widths: Widths) -> Widths:
    """These widths with every block switched on."""
    return space.presence.with_all(widths)
