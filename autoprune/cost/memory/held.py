"""During which calls of the graph each value is held, also where blocks are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import final

import numpy as np

from autoprune.space.groups import BoolArray, FloatArray, SearchSpace


@final
class Held:
    """What is held during each call that can be the one with most.

    A block that is off makes no calls, and its output is its input: the memory of the one is held as long as either is.

    Args:
        space: with the calls of its graph.
        owners: indices of its activations that have memory of their own.
        matter: calls that must not be left out, whatever is held during others.

    Attributes:
        switches: for each owner, the group that makes it vanish; -1 where there is none.
        shape: (owners, calls).
    """

    def __init__(self, space: SearchSpace, owners: Sequence[int], matter: Iterable[int]) -> None:
        made = [(index, number, call.switch) for number, call in enumerate(space.calls) for index in call.outputs]
        born = {index: number for index, number, _ in made}
        switch = {index: group for index, _, group in made}
        self._aliases = _aliases(space, owners)
        stand_in = {output for _, _, output in self._aliases}
        self.switches = [-1 if at in stand_in else switch.get(index, -1) for at, index in enumerate(owners)]
        calls = np.arange(len(space.calls))
        last = np.array([space.activations[index].last for index in owners])[:, None]
        first = np.array([born.get(index, 0) for index in owners])[:, None]
        held: BoolArray = (first <= calls) & ((calls <= last) | (last < 0))
        switched = [call.switch >= 0 for call in space.calls]
        kept = _that_can_be_most(held, switched, set(matter))
        self._held = held[:, kept]
        self._column = {call: column for column, call in enumerate(kept)}
        self._switched = [(column, space.calls[call].switch) for column, call in enumerate(kept) if switched[call]]
        special = sorted({at for _, *pair in self._aliases for at in pair})
        self._special = special
        self._plain = [at for at in range(len(owners)) if at not in set(special)]
        self._matrix = self._held[self._plain].astype(np.float64)

    @property
    def shape(self) -> tuple[int, int]:
        """(owners, calls)."""
        return self._held.shape[0], self._held.shape[1]

    def sums(self, sizes: FloatArray, besides: Mapping[int, FloatArray], w: FloatArray) -> FloatArray:
        """Return (N, calls) of what is held.

        Args:
            sizes: (N, owners) of each value.
            besides: call -> (N,) what it takes for itself.
            w: (N, G) widths.
        """
        total: FloatArray = sizes[:, self._plain] @ self._matrix
        there = {at: np.repeat(self._held[[at]], len(w), axis=0) for at in self._special}
        for group, source, output in reversed(self._aliases):  # what follows a block that is off reads its input
            off = (w[:, group] < 0.5)[:, None]
            there[source] |= off & there[output]
            there[output] &= ~off
        for at, held in there.items():
            total += sizes[:, [at]] * held
        for call, own in besides.items():
            total[:, self._column[call]] += own
        for column, group in self._switched:
            total[:, column] *= w[:, group]
        return total


def _aliases(space: SearchSpace, owners: Sequence[int]) -> list[tuple[int, int, int]]:
    """(group, input, output) of every block that can be left out, in graph order, as positions among the owners."""
    place = {index: at for at, index in enumerate(owners)}
    lies_in = {a.name: place[a.storage] for a in space.activations if a.storage in place}
    return [
        (group, lies_in[block.input], lies_in[block.output])
        for group, block in space.presence.blocks.items()
        if block.input in lies_in and block.output in lies_in
    ]


def _that_can_be_most(held: BoolArray, switched: Sequence[bool], matter: set[int]) -> list[int]:
    """Calls without those during which no more is held than during a neighbour that is always there."""
    kept = [0]
    for call in range(1, held.shape[1]):
        before = kept[-1]
        less, more = (held[:, call] <= held[:, before]).all(), (held[:, before] <= held[:, call]).all()
        if less and call not in matter and not switched[before]:
            continue
        if more and before not in matter and not switched[call]:
            kept.pop()
        kept.append(call)
    return kept
